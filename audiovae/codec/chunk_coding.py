"""Chunks of log-mel to payloads and back, in batches whose rows are independent.

The encoder runs the top-down path on the latents that the decoder will have, so both compute the
same features; the groups are coded in the order of that path, from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.chunks import STEP_FRAMES, padded_frames
from audiovae.codec.coder import SymbolDecoder, SymbolEncoder
from audiovae.codec.group_coders import Answer, ChooseRows, GroupCoder, group_coder
from audiovae.codec.integers import ByteReader
from audiovae.codec.retrieval import Answers, pack_answers
from audiovae.codec.symbols import GroupSymbols, Integers, symbols_crc
from audiovae.codec.types import CodedChunk, DamagedChunkError
from audiovae.errors import BitstreamError, ShapeError
from audiovae.latents import Conditions
from audiovae.models.blocks import step_mask
from audiovae.models.bottlenecks import LatentSample


@torch.no_grad()
def encode_chunks(
    model: Model, log_mel: Tensor, num_frames: Tensor, conditions: Conditions
) -> list[CodedChunk]:
    """Code a batch of chunks.

    Args:
        model: With a bottleneck that is coded.
        log_mel: `[batch, mel, frame]`, padded; natural log of magnitude.
        num_frames: `[batch]`; frames of each chunk that are signal.
        conditions: Of each chunk; the decoder needs the same.

    Returns:
        One chunk a row.

    Raises:
        ModelMismatchError: If the model's bottleneck makes no compressed files.
    """
    coder = group_coder(model)
    lengths = [int(count) for count in num_frames.tolist()]
    writers = [_RowWriter(coder) for _ in lengths]
    strides = _group_strides(model)

    def take(group: int, posterior: Tensor, prior: Tensor) -> LatentSample:
        valid = [-(-length // strides[group]) for length in lengths]
        sample, coded = coder.quantise(group, posterior, prior, valid)
        for writer, of_row in zip(writers, coded, strict=True):
            for symbols in of_row:
                writer.append(symbols)
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
    return _decode(model, coded, padded_frames, conditions)


@torch.no_grad()
def measure_chunk(model: Model, chunk: CodedChunk, log_lambda: float | None) -> CodedChunk:
    """Find out what a chunk that was read from a file does not say: its bits by level.

    Args:
        model: The one that coded it.
        chunk: From `AvaeReader.read_chunk`.
        log_lambda: From the file's header.

    Returns:
        The same chunk with `level_bits` and `corrections_bytes`.

    Raises:
        DamagedChunkError: If its symbols are not those that were coded.
        ModelMismatchError: If the model's bottleneck makes no compressed files.
    """
    levels = model.vae.config.vae.group_levels
    level_bits = [0.0] * (max(levels) + 1)

    def observe(group: int, bits: Tensor) -> None:
        level_bits[levels[group]] += float(bits.sum())

    under = Conditions()
    if log_lambda is not None:
        under = Conditions(torch.full((1,), log_lambda, device=model.device))
    _decode(model, [chunk], padded_frames(chunk.num_frames), under, observe)
    reader = ByteReader(chunk.payload, "a chunk")
    Answers(reader)
    return replace(chunk, level_bits=tuple(level_bits), corrections_bytes=reader.position)


def _decode(
    model: Model,
    coded: Sequence[CodedChunk],
    frames: int,
    conditions: Conditions,
    observe: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Decode a batch; `observe(group, bits [batch, unit, step])` is told the estimated rate."""
    coder = group_coder(model)
    longest = max(chunk.num_frames for chunk in coded)
    if longest > frames:
        raise ShapeError(f"expected padded_frames of at least {longest}, got {frames}")
    num_frames = torch.tensor([chunk.num_frames for chunk in coded], device=model.device)
    strides = _group_strides(model)
    readers = [_RowReader(model, coder, chunk) for chunk in coded]

    def choose(group: int, _features: Tensor, prior: Tensor) -> Tensor:
        def read(shape: tuple[int, int, int], rows_of: ChooseRows) -> Integers:
            return _read_group(readers, shape, rows_of, strides[group])

        sample = coder.restore(group, prior, read)
        mask = step_mask(num_frames, prior.shape[2], strides[group])
        if observe is not None:
            observe(group, sample.bits * mask)
        return sample.latent * mask

    with _exact_float32():
        log_mel = model.vae.top_down(num_frames, frames, conditions, choose)
    for reader in readers:
        reader.finish()
    return log_mel


def _read_group(
    readers: Sequence[_RowReader], shape: tuple[int, int, int], rows_of: ChooseRows, stride: int
) -> Integers:
    """Symbols `[batch, channel, step]` of one group; 0 at steps that cover no signal."""
    symbols = np.zeros(shape, dtype=np.int32)
    for item, reader in enumerate(readers):
        steps = -(-reader.num_frames // stride)
        read = reader.read(shape[1] * steps, partial(rows_of, item, steps))
        symbols[item, :, :steps] = read.reshape(-1, steps)
    return symbols


@dataclass
class _RowWriter:
    """Gathers the groups of one chunk."""

    coder: GroupCoder
    ties: dict[int, bool] = field(default_factory=dict)
    num_symbols: int = 0
    crc: int = 0

    def __post_init__(self) -> None:
        self.encoder = SymbolEncoder(self.coder.table)

    def append(self, group: GroupSymbols) -> None:
        self.encoder.encode(group.symbols, group.rows)
        first = self.num_symbols * self.coder.questions
        for question, answer in group.ties.items():
            self.ties[first + question] = answer
        self.num_symbols += len(group.symbols)
        self.crc = symbols_crc(group.symbols, self.crc)

    def finish(self, num_frames: int, level_bits: tuple[float, ...]) -> CodedChunk:
        corrections = pack_answers(self.ties)
        return CodedChunk(
            payload=corrections + self.encoder.finish(),
            symbols_crc=self.crc,
            num_frames=num_frames,
            level_bits=level_bits,
            corrections_bytes=len(corrections),
        )


class _RowReader:
    """Reads the groups of one chunk; every failure names the chunk."""

    def __init__(self, model: Model, coder: GroupCoder, chunk: CodedChunk) -> None:
        self._questions = coder.questions
        self._chunk = chunk
        self._frames_per_second = model.config.spectrogram.frames_per_second
        self._crc = 0
        self._num_symbols = 0
        self.num_frames = chunk.num_frames
        reader = ByteReader(chunk.payload, "a chunk")
        try:
            self._answers = Answers(reader)
        except BitstreamError as error:
            raise self._damage(str(error)) from None
        self._decoder = SymbolDecoder(coder.table, reader.take(reader.remaining))

    def read(self, count: int, rows_of: Callable[[Answer], Integers]) -> Integers:
        """The next symbols; `rows_of` chooses their rows with the encoder's answers."""
        first = self._num_symbols * self._questions
        self._num_symbols += count
        rows = rows_of(lambda question: self._answers.at(first + question))
        try:
            symbols = self._decoder.decode(rows)
        except BitstreamError as error:
            raise self._damage(str(error)) from None
        self._crc = symbols_crc(symbols, self._crc)
        return symbols

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


def _group_strides(model: Model) -> list[int]:
    """Mel frames behind one step of each group."""
    strides = model.vae.config.vae.level_strides
    return [strides[level] for level in model.vae.config.vae.group_levels]


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
