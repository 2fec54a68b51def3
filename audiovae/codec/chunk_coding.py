"""Chunks of log-mel to payloads and back, in batches whose rows are independent.

The encoder runs the top-down path on the latents that the decoder will have, so both compute the
same features; the groups are coded in the order of that path, from coarse to fine, and behind them
the gains of what they decode to, and the angles to the first channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.chunks import padded_frames
from audiovae.codec.group_coders import ChooseRows, group_coder
from audiovae.codec.payload import ChunkReader, ChunkWriter
from audiovae.codec.symbols import Integers
from audiovae.codec.types import CodedChunk
from audiovae.coherence import Angles
from audiovae.errors import ShapeError
from audiovae.gains import apply_gains, measure_gains
from audiovae.latents import Conditions
from audiovae.models.blocks import step_mask
from audiovae.models.bottlenecks import LatentSample


@torch.no_grad()
def encode_chunks(
    model: Model,
    log_mel: Tensor,
    num_frames: Tensor,
    conditions: Conditions,
    num_coded: int | None = None,
    angles: Sequence[Angles | None] | None = None,
) -> list[CodedChunk]:
    """Code a batch of chunks.

    Args:
        model: With a bottleneck that is coded.
        log_mel: `[batch, mel, frame]`, padded; natural log of magnitude.
        num_frames: `[batch]`; frames of each chunk that are signal.
        conditions: Of each chunk; the decoder needs the same.
        num_coded: How many rows are chunks; those behind them only fill the batch. None: all.
        angles: Of each chunk; None for one in phase with the first channel, or all of them.

    Returns:
        The chunk of each row that is one.

    Raises:
        ModelMismatchError: If the model's bottleneck makes no compressed files.
    """
    coder = group_coder(model)
    lengths = [int(count) for count in num_frames[:num_coded].tolist()]
    angles = [None] * len(lengths) if angles is None else angles
    writers = [ChunkWriter(coder) for _ in lengths]
    strides = model.vae.config.vae.group_strides

    def take(group: int, posterior: Tensor, prior: Tensor, _mask: Tensor) -> LatentSample:
        valid = [-(-length // strides[group]) for length in lengths]
        sample, coded = coder.quantise(group, posterior, prior, valid)
        for writer, of_row in zip(writers, coded, strict=True):
            for symbols in of_row:
                writer.append(symbols)
        return sample

    with _EXACT_FLOAT32:
        output = model.vae.reconstruct(log_mel, num_frames, conditions, take)
    level_bits = output.level_bits().double().cpu().tolist()
    chunks = []
    for row, (writer, length) in enumerate(zip(writers, lengths, strict=True)):
        gains = measure_gains(log_mel[row, :, :length], output.log_mel[row, :, :length])
        whole = gains.cpu().numpy().astype(np.int32)
        chunks.append(writer.finish(length, tuple(level_bits[row]), whole, angles[row]))
    return chunks


@torch.no_grad()
def decode_chunks(
    model: Model,
    coded: Sequence[CodedChunk],
    padded_frames: int,
    conditions: Conditions,
    num_rows: int | None = None,
) -> tuple[Tensor, list[Angles | None]]:
    """Decode a batch of chunks.

    Args:
        model: The one that coded them.
        coded: One chunk a row.
        padded_frames: Frames of the result; at least those of each chunk.
        conditions: Those the chunks were coded under, of all rows.
        num_rows: Rows of the batch, of which the first are the chunks; None: no others.

    Returns:
        `[batch, mel, frame]`, natural log of magnitude, meaningless beyond each chunk's frames; and
        the angles of each chunk, None where it is in phase with the first channel.

    Raises:
        DamagedChunkError: At the first chunk whose symbols are not those that were coded.
        ModelMismatchError: If the model's bottleneck makes no compressed files.
    """
    readers = [ChunkReader(model, chunk) for chunk in coded]
    return _decode(model, readers, padded_frames, conditions, num_rows)


@torch.no_grad()
def measure_chunk(model: Model, chunk: CodedChunk, log_lambda: float | None) -> CodedChunk:
    """Find out what a chunk that was read from a file does not say: its bits by level.

    Args:
        model: The one that coded it.
        chunk: From `AvaeReader.read_chunk`.
        log_lambda: From the file's header.

    Returns:
        The same chunk with `level_bits`, `side_bits` and `corrections_bytes`.

    Raises:
        DamagedChunkError: If its symbols are not those that were coded.
        ModelMismatchError: If the model's bottleneck makes no compressed files.
    """
    levels = model.vae.config.vae.group_levels
    level_bits = [0.0] * (max(levels) + 1)

    def observe(group: int, bits: Tensor) -> None:
        level_bits[levels[group]] += float(bits.sum())

    under = Conditions.at_lambda(log_lambda, 1, model.device)
    reader = ChunkReader(model, chunk)
    _decode(model, [reader], padded_frames(chunk.num_frames), under, observe=observe)
    return replace(
        chunk,
        level_bits=tuple(level_bits),
        side_bits=reader.side_bits,
        corrections_bytes=reader.corrections_bytes,
    )


def _decode(
    model: Model,
    readers: Sequence[ChunkReader],
    frames: int,
    conditions: Conditions,
    num_rows: int | None = None,
    observe: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, list[Angles | None]]:
    """Decode a batch; `observe(group, bits [batch, unit, step])` is told the estimated rate."""
    coder = readers[0].coder
    longest = max(reader.num_frames for reader in readers)
    if longest > frames:
        raise ShapeError(f"expected padded_frames of at least {longest}, got {frames}")
    lengths = [reader.num_frames for reader in readers]
    lengths += [1] * ((num_rows or 0) - len(lengths))
    num_frames = torch.tensor(lengths, device=model.device)
    strides = model.vae.config.vae.group_strides

    def choose(group: int, _features: Tensor, prior: Tensor) -> Tensor:
        def read(shape: tuple[int, int, int], rows_of: ChooseRows) -> Integers:
            return _read_group(readers, shape, rows_of, strides[group])

        sample = coder.restore(group, prior, read)
        mask = step_mask(num_frames, prior.shape[2], strides[group])
        if observe is not None:
            observe(group, sample.bits * mask)
        return sample.latent * mask

    with _EXACT_FLOAT32:
        log_mel = model.vae.top_down(num_frames, frames, conditions, choose)
    all_angles = []
    for row, reader in enumerate(readers):
        gains, angles = reader.finish()
        own = log_mel[row, :, : reader.num_frames]
        own.copy_(apply_gains(own, torch.from_numpy(gains)))
        all_angles.append(angles)
    return log_mel, all_angles


def _read_group(
    readers: Sequence[ChunkReader], shape: tuple[int, int, int], rows_of: ChooseRows, stride: int
) -> Integers:
    """Symbols `[batch, channel, step]` of one group; 0 at steps and in rows without signal."""
    symbols = np.zeros(shape, dtype=np.int32)
    for item, reader in enumerate(readers):
        steps = -(-reader.num_frames // stride)
        read = reader.read(shape[1] * steps, partial(rows_of, item, steps))
        symbols[item, :, :steps] = read.reshape(-1, steps)
    return symbols


class _ExactFloat32:
    """Keeps float32 products whole: reduced-precision shortcuts move scales past the margin.

    The switches are those of the process, and threads share a device: the first to come sets
    them, the last to leave puts them back.
    """

    def __init__(self) -> None:
        self._lock, self._users, self._before = Lock(), 0, ("highest", False)

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                precision = torch.get_float32_matmul_precision()
                self._before = (precision, torch.backends.cudnn.allow_tf32)
                self._set("highest", False)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._set(*self._before)

    @staticmethod
    def _set(precision: str, cudnn_tf32: bool) -> None:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn_tf32


_EXACT_FLOAT32 = _ExactFloat32()
