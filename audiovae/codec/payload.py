"""The payload of one chunk, written and read: answers, rows, and one stream of symbols.

`docs/format.md`, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from audiovae.checkpoint import Model
from audiovae.chunks import STEP_FRAMES
from audiovae.codec.coder import SymbolDecoder, SymbolEncoder
from audiovae.codec.grid_symbols import (
    GRID_TABLE,
    NUM_ROWS,
    angles_of,
    gains_of,
    grid_row,
    grid_symbols,
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
    """Gathers the groups of one chunk, its gains and its angles."""

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

    def finish(
        self,
        num_frames: int,
        level_bits: tuple[float, ...],
        gains: Integers,
        angles: Integers | None = None,
    ) -> CodedChunk:
        """Add the gains `[band, block]` and angles, if there are any, and give the chunk."""
        corrections = pack_answers(self.ties)
        rows, side_bits = b"", 0.0
        grids = [gains] if angles is None else [gains, angles]
        for place, values in enumerate(grids, start=1):
            symbols, row = grid_symbols(values)
            self.encoder.encode(symbols, np.full_like(symbols, row), GRID_TABLE)
            self.crc = symbols_crc(symbols, self.crc)
            another_follows = place < len(grids)
            rows += bytes([row + another_follows * NUM_ROWS])
            side_bits += symbol_bits(symbols, row)
        return CodedChunk(
            payload=corrections + rows + self.encoder.finish(),
            symbols_crc=self.crc,
            num_frames=num_frames,
            level_bits=level_bits,
            side_bits=side_bits,
            corrections_bytes=len(corrections),
        )


class ChunkReader:
    """Reads the groups of one chunk, its gains and angles; every failure names the chunk."""

    def __init__(self, model: Model, chunk: CodedChunk) -> None:
        self.coder = group_coder(model)
        self._chunk = chunk
        self._frames_per_second = model.config.spectrogram.frames_per_second
        self._crc = 0
        self._num_symbols = 0
        self.num_frames = chunk.num_frames
        self.side_bits = 0.0
        reader = ByteReader(chunk.payload, "a chunk")
        try:
            self._answers = Answers(reader)
            self.corrections_bytes = reader.position
            self._gain_row, has_angles = grid_row(reader)
            self._angle_row = grid_row(reader)[0] if has_angles else None
        except BitstreamError as error:
            raise self._damage(str(error)) from None
        self._decoder = SymbolDecoder(reader.take(reader.remaining))

    def read(self, count: int, rows_of: Callable[[Answer], Integers]) -> Integers:
        """The next symbols; `rows_of` chooses their rows with the encoder's answers."""
        first = self._num_symbols * self.coder.questions
        self._num_symbols += count
        rows = rows_of(lambda question: self._answers.at(first + question))
        return self._next(rows, self.coder.table)

    def finish(self) -> tuple[Integers, Integers | None]:
        """Gains and angles `[band, block]`, when all groups are read and nothing differs."""
        gains = self._grid(self._gain_row)
        angles = None if self._angle_row is None else self._grid(self._angle_row)
        if self._crc != self._chunk.symbols_crc:
            raise self._damage(
                f"expected symbols with checksum {self._chunk.symbols_crc:08x}, got "
                f"{self._crc:08x}; this device computes too differently from the encoder's: "
                "decode on a CPU with an unmodified model"
            )
        try:
            return gains_of(gains), None if angles is None else angles_of(angles)
        except BitstreamError as error:
            raise self._damage(str(error)) from None

    def _grid(self, row: int) -> Integers:
        rows = np.full(NUM_BANDS * num_blocks(self.num_frames), row, dtype=np.int32)
        symbols = self._next(rows, GRID_TABLE)
        self.side_bits += symbol_bits(symbols, row)
        return symbols

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
