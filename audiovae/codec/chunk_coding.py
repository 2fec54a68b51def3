"""Chunks of log-mel to payloads and back, in batches whose rows are independent.

The encoder runs the top-down path on the latents that the decoder will have, so both compute the
same features; the groups are coded in the order of that path, from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.chunks import STEP_FRAMES
from audiovae.codec.coder import SymbolDecoder, SymbolEncoder
from audiovae.codec.integers import ByteReader, pack_positions, unpack_positions
from audiovae.codec.symbols import (
    Floats,
    GroupSymbols,
    Integers,
    Positions,
    exact,
    quantise,
    restore,
    rows_at_ties,
    symbols_crc,
)
from audiovae.codec.types import CodedChunk, DamagedChunkError
from audiovae.errors import BitstreamError, ModelMismatchError, ShapeError
from audiovae.latents import Conditions
from audiovae.models.blocks import step_mask
from audiovae.models.bottlenecks import LatentSample
from audiovae.models.bottlenecks.quantized import Bottleneck, FrequencyTable


@torch.no_grad()
def encode_chunks(
    model: Model, log_mel: Tensor, num_frames: Tensor, conditions: Conditions
) -> list[CodedChunk]:
    """Code a batch of chunks.

    Args:
        model: With a quantized bottleneck.
        log_mel: `[batch, mel, frame]`, padded; natural log of magnitude.
        num_frames: `[batch]`; frames of each chunk that are signal.
        conditions: Of each chunk; the decoder needs the same.

    Returns:
        One chunk a row.

    Raises:
        ModelMismatchError: If the model's bottleneck makes no compressed files.
    """
    bottleneck, table = _coding_parts(model)
    lengths = [int(count) for count in num_frames.tolist()]
    writers = [_RowWriter(table) for _ in lengths]
    strides = _group_strides(model)

    def take(group: int, posterior: Tensor, prior: Tensor) -> LatentSample:
        valid = [-(-length // strides[group]) for length in lengths]
        sample, symbols = quantise(bottleneck, table, posterior, prior, valid)
        for writer, of_row in zip(writers, symbols, strict=True):
            writer.append(of_row)
        return sample

    with _exact_float32():
        output = model.vae.reconstruct(log_mel, num_frames, conditions, take)
    level_bits = output.level_bits().double().cpu().tolist()
    return [
        writer.finish(length, tuple(bits))
        for writer, length, bits in zip(writers, lengths, level_bits, strict=True)
    ]


@torch.no_grad()
def decode_chunks(
    model: Model, coded: Sequence[CodedChunk], padded_frames: int, conditions: Conditions
) -> Tensor:
    """Decode a batch of chunks.

    Args:
        model: The one that coded them.
        coded: One chunk a row.
        padded_frames: Frames of the result; at least those of each chunk.
        conditions: Those the chunks were coded under.

    Returns:
        `[batch, mel, frame]`, natural log of magnitude; meaningless beyond each chunk's frames.

    Raises:
        DamagedChunkError: At the first chunk whose symbols are not those that were coded.
        ModelMismatchError: If the model's bottleneck makes no compressed files.
    """
    bottleneck, table = _coding_parts(model)
    longest = max(chunk.num_frames for chunk in coded)
    if longest > padded_frames:
        raise ShapeError(f"expected padded_frames of at least {longest}, got {padded_frames}")
    num_frames = torch.tensor([chunk.num_frames for chunk in coded], device=model.device)
    strides = _group_strides(model)
    readers = [_RowReader(model, table, chunk) for chunk in coded]

    def choose(group: int, features: Tensor, prior: Tensor) -> Tensor:
        of_residual = bottleneck.split_prior(prior)
        log_scale = exact(of_residual.log_scale)  # [batch, channel, step]
        residuals = np.zeros(log_scale.shape, dtype=np.int32)
        for row, reader in enumerate(readers):
            steps = -(-coded[row].num_frames // strides[group])
            decoded = reader.read(log_scale[row, :, :steps].ravel())
            residuals[row, :, :steps] = decoded.reshape(-1, steps)
        mask = step_mask(num_frames, features.shape[2], strides[group])
        return restore(of_residual, residuals, mask)

    with _exact_float32():
        log_mel = model.vae.top_down(num_frames, padded_frames, conditions, choose)
    for reader in readers:
        reader.finish()
    return log_mel


@dataclass
class _RowWriter:
    """Gathers the groups of one chunk."""

    table: FrequencyTable
    ties: list[int] = field(default_factory=list)
    num_symbols: int = 0
    crc: int = 0

    def __post_init__(self) -> None:
        self.encoder = SymbolEncoder(self.table)

    def append(self, symbols: GroupSymbols) -> None:
        self.encoder.encode(symbols.residuals, symbols.indices)
        self.ties += (symbols.ties + self.num_symbols).tolist()
        self.num_symbols += len(symbols.residuals)
        self.crc = symbols_crc(symbols.residuals, self.crc)

    def finish(self, num_frames: int, level_bits: tuple[float, ...]) -> CodedChunk:
        corrections = pack_positions(self.ties, self.num_symbols)
        return CodedChunk(
            payload=corrections + self.encoder.finish(),
            symbols_crc=self.crc,
            num_frames=num_frames,
            level_bits=level_bits,
            corrections_bytes=len(corrections),
        )


class _RowReader:
    """Reads the groups of one chunk; every failure names the chunk."""

    def __init__(self, model: Model, table: FrequencyTable, chunk: CodedChunk) -> None:
        self._table = table
        self._chunk = chunk
        self._frames_per_second = model.config.spectrogram.frames_per_second
        self._crc = 0
        self._start = 0
        reader = ByteReader(chunk.payload, "a chunk")
        try:
            ties = unpack_positions(reader, _num_symbols(model, chunk.num_frames))
        except BitstreamError as error:
            raise self._damage(str(error)) from None
        self._ties: Positions = np.array(ties, dtype=np.int64)
        self._decoder = SymbolDecoder(table, reader.take(reader.remaining))

    def read(self, log_scale: Floats) -> Integers:
        """Residuals `[symbol]` of the next group, whose prior scales these are."""
        stop = self._start + len(log_scale)
        first, last = np.searchsorted(self._ties, [self._start, stop])
        ties = self._ties[first:last] - self._start
        self._start = stop
        try:
            residuals = self._decoder.decode(rows_at_ties(self._table, log_scale, ties))
        except BitstreamError as error:
            raise self._damage(str(error)) from None
        self._crc = symbols_crc(residuals, self._crc)
        return residuals

    def finish(self) -> None:
        """Compare the symbols with what the encoder coded."""
        if self._crc != self._chunk.symbols_crc:
            raise self._damage(
                f"expected symbols with checksum {self._chunk.symbols_crc:08x}, got "
                f"{self._crc:08x}; this device computes too differently from the encoder's: "
                "decode on a CPU with an unmodified model"
            )

    def _damage(self, reason: str) -> DamagedChunkError:
        start = self._chunk.index * STEP_FRAMES / self._frames_per_second
        stop = start + self._chunk.num_frames / self._frames_per_second
        return DamagedChunkError(reason, self._chunk.channel, self._chunk.index, start, stop)


def _coding_parts(model: Model) -> tuple[Bottleneck, FrequencyTable]:
    bottleneck, table = model.vae.bottleneck, model.frequency_table
    if table is None or not isinstance(bottleneck, Bottleneck):
        raise ModelMismatchError(
            "expected a model with the quantized bottleneck to code with, got "
            f"{model.config.name} with '{model.config.bottleneck.kind}'; choose another model"
        )
    return bottleneck, table


def _group_strides(model: Model) -> list[int]:
    """Mel frames behind one step of each group."""
    strides = model.vae.level_strides()
    return [strides[level] for level in model.vae.group_levels()]


def _num_symbols(model: Model, num_frames: int) -> int:
    """Residuals of one chunk, all groups together."""
    coarse_to_fine = tuple(reversed(model.config.vae.levels))
    channels = [coarse_to_fine[level].channels for level in model.vae.group_levels()]
    steps = [-(-num_frames // stride) for stride in _group_strides(model)]
    return sum(c * s for c, s in zip(channels, steps, strict=True))


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Keep float32 products whole: reduced-precision shortcuts move scales past the margin."""
    precision = torch.get_float32_matmul_precision()
    cudnn_tf32 = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn_tf32
