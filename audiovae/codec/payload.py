"""The payload of one chunk, written and read: answers, the row of gains, and one stream of symbols.

`docs/format.md`, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from audiovae.checkpoint import Model
from audiovae.chunks import STEP_FRAMES
from audiovae.codec.coder import SymbolDecoder, SymbolEncoder
from audiovae.codec.gain_symbols import (
    GAIN_TABLE,
    gain_row,
    gain_symbols,
    gains_of,
    symbol_bits,
)
from audiovae.codec.group_coders import Answer, GroupCoder, group_coder
from audiovae.codec.integers import ByteReader
from audiovae.codec.retrieval import Answers, pack_answers
from audiovae.codec.symbols import GroupSymbols, Integers, symbols_crc
from audiovae.codec.types import CodedChunk, DamagedChunkError
from audiovae.errors import BitstreamError
from audiovae.gains import NUM_BANDS, num_blocks
from audiovae.models.bottlenecks import SymbolTable


@dataclass
class ChunkWriter:
    """Gathers the groups of one chunk, and its gains."""

    coder: GroupCoder
    ties: dict[int, bool] = field(default_factory=dict)
    num_symbols: int = 0
    crc: int = 0

    def __post_init__(self) -> None:
        self.encoder = SymbolEncoder()

    def append(self, group: GroupSymbols) -> None:
        """Add the next group, or stage of one."""
        self.encoder.encode(group.symbols, group.rows, self.coder.table)
        first = self.num_symbols * self.coder.questions
        for question, answer in group.ties.items():
            self.ties[first + question] = answer
        self.num_symbols += len(group.symbols)
        self.crc = symbols_crc(group.symbols, self.crc)

    def finish(self, num_frames: int, level_bits: tuple[float, ...], gains: Integers) -> CodedChunk:
        """Add the gains `[band, block]`, and give the chunk."""
        corrections = pack_answers(self.ties)
        symbols, row = gain_symbols(gains)
        self.encoder.encode(symbols, np.full_like(symbols, row), GAIN_TABLE)
        return CodedChunk(
            payload=corrections + bytes([row]) + self.encoder.finish(),
            symbols_crc=symbols_crc(symbols, self.crc),
            num_frames=num_frames,
            level_bits=level_bits,
            gain_bits=symbol_bits(symbols, row),
            corrections_bytes=len(corrections),
        )


class ChunkReader:
    """Reads the groups of one chunk, and its gains; every failure names the chunk."""

    def __init__(self, model: Model, chunk: CodedChunk) -> None:
        self.coder = group_coder(model)
        self._chunk = chunk
        self._frames_per_second = model.config.spectrogram.frames_per_second
        self._crc = 0
        self._num_symbols = 0
        self.num_frames = chunk.num_frames
        self.gain_bits = 0.0
        reader = ByteReader(chunk.payload, "a chunk")
        try:
            self._answers = Answers(reader)
            self.corrections_bytes = reader.position
            self._gain_row = gain_row(reader)
        except BitstreamError as error:
            raise self._damage(str(error)) from None
        self._decoder = SymbolDecoder(reader.take(reader.remaining))

    def read(self, count: int, rows_of: Callable[[Answer], Integers]) -> Integers:
        """The next symbols; `rows_of` chooses their rows with the encoder's answers."""
        first = self._num_symbols * self.coder.questions
        self._num_symbols += count
        rows = rows_of(lambda question: self._answers.at(first + question))
        return self._next(rows, self.coder.table)

    def finish(self) -> Integers:
        """The gains `[band, block]`, when all groups are read and nothing differs from them."""
        rows = np.full(NUM_BANDS * num_blocks(self.num_frames), self._gain_row, dtype=np.int32)
        symbols = self._next(rows, GAIN_TABLE)
        self.gain_bits = symbol_bits(symbols, self._gain_row)
        if self._crc != self._chunk.symbols_crc:
            raise self._damage(
                f"expected symbols with checksum {self._chunk.symbols_crc:08x}, got "
                f"{self._crc:08x}; this device computes too differently from the encoder's: "
                "decode on a CPU with an unmodified model"
            )
        try:
            return gains_of(symbols)
        except BitstreamError as error:
            raise self._damage(str(error)) from None

    def _next(self, rows: Integers, table: SymbolTable) -> Integers:
        try:
            symbols = self._decoder.decode(rows, table)
        except BitstreamError as error:
            raise self._damage(str(error)) from None
        self._crc = symbols_crc(symbols, self._crc)
        return symbols

    def _damage(self, reason: str) -> DamagedChunkError:
        start = self._chunk.index * STEP_FRAMES / self._frames_per_second
        stop = start + self._chunk.num_frames / self._frames_per_second
        return DamagedChunkError(reason, self._chunk.channel, self._chunk.index, start, stop)
