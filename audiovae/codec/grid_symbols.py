"""Gains and angles as symbols: differences in time, under a table that every file shares."""

from __future__ import annotations

import numpy as np

from audiovae import coherence, gains
from audiovae.codec.integers import ByteReader
from audiovae.codec.symbols import Integers
from audiovae.errors import BitstreamError
from audiovae.models.bottlenecks.quantized import FREQUENCY_BITS
from audiovae.models.code_table import CodeTable

NUM_ROWS = 16
_LARGEST_DIFFERENCE = 2 * gains.MAX_STEPS + 1


def grid_symbols(values: Integers) -> tuple[Integers, int]:
    """What is coded of values `[band, block]`: differences in time, and the row they fit best.

    The first block's are differences between neighbouring bands. A symbol is a difference plus
    `_LARGEST_DIFFERENCE`, row by row of `[band, block]`.
    """
    first = np.diff(values[:, :1], axis=0, prepend=0)
    later = np.diff(values, axis=1)
    differences = np.concatenate([first, later], axis=1).ravel()
    symbols = (differences + _LARGEST_DIFFERENCE).astype(np.int32)
    return symbols, min(range(NUM_ROWS), key=lambda row: symbol_bits(symbols, row))


def gains_of(symbols: Integers) -> Integers:
    """Gains `[band, block]` of the symbols that `grid_symbols` gave.

    Raises:
        BitstreamError: If a gain is larger than an encoder writes.
    """
    return _values_of(symbols, "gains", -gains.MAX_STEPS, gains.MAX_STEPS)


def angles_of(symbols: Integers) -> Integers:
    """Angles `[band, block]` of the symbols that `grid_symbols` gave.

    Raises:
        BitstreamError: If an angle is none that an encoder writes.
    """
    return _values_of(symbols, "angles", 0, coherence.MAX_STEPS)


def grid_row(reader: ByteReader) -> tuple[int, bool]:
    """Read which row symbols were coded with, and whether another grid follows.

    Raises:
        BitstreamError: If there is no such row.
    """
    byte = reader.take(1)[0]
    follows, row = divmod(byte, NUM_ROWS)
    if follows > 1:
        raise BitstreamError(
            f"expected a row of gains below {2 * NUM_ROWS}, got {byte}; "
            "copy the file again from its source"
        )
    return row, bool(follows)


def symbol_bits(symbols: Integers, row: int) -> float:
    """What the symbols cost under a row."""
    return float((FREQUENCY_BITS - np.log2(GRID_TABLE.row(row)[symbols])).sum())


def _values_of(symbols: Integers, what: str, lowest: int, highest: int) -> Integers:
    differences = symbols.reshape(gains.NUM_BANDS, -1) - np.int32(_LARGEST_DIFFERENCE)
    differences[:, 0] = np.cumsum(differences[:, 0])
    values = np.cumsum(differences, axis=1, dtype=np.int32)
    for found in (int(values.min()), int(values.max())):
        if not lowest <= found <= highest:
            raise BitstreamError(
                f"expected {what} of {lowest} to {highest} steps, got {found}; "
                "copy the file again from its source"
            )
    return values


def _grid_table() -> CodeTable:
    """Row r: a difference d has a chance of about (r/16)^|d|; whole numbers only."""
    rows = np.ones((NUM_ROWS, 2 * _LARGEST_DIFFERENCE + 1), dtype=np.int64)
    for row in range(NUM_ROWS):
        weight = ((1 << FREQUENCY_BITS) * (NUM_ROWS - row)) // (NUM_ROWS + row)
        for distance in range(1, _LARGEST_DIFFERENCE + 1):
            weight = weight * row // NUM_ROWS
            rows[row, [_LARGEST_DIFFERENCE - distance, _LARGEST_DIFFERENCE + distance]] += weight
        rows[row, _LARGEST_DIFFERENCE] += (1 << FREQUENCY_BITS) - rows[row].sum()
    return CodeTable(rows.astype(np.int32)[None, None])


GRID_TABLE = _grid_table()
"""The same for every model and file."""
