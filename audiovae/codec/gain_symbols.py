"""Gains as symbols: differences in time, under a table of frequencies that every file shares."""

from __future__ import annotations

import numpy as np

from audiovae.codec.integers import ByteReader
from audiovae.codec.symbols import Integers
from audiovae.errors import BitstreamError
from audiovae.gains import MAX_STEPS, NUM_BANDS
from audiovae.models.bottlenecks.quantized import FREQUENCY_BITS
from audiovae.models.code_table import CodeTable

NUM_ROWS = 16
_LARGEST_DIFFERENCE = 2 * MAX_STEPS + 1


def gain_symbols(gains: Integers) -> tuple[Integers, int]:
    """What is coded of gains `[band, block]`: differences in time, and the row they fit best.

    The first block's are differences between neighbouring bands. A symbol is a difference plus
    `_LARGEST_DIFFERENCE`, row by row of `[band, block]`.
    """
    first = np.diff(gains[:, :1], axis=0, prepend=0)
    later = np.diff(gains, axis=1)
    differences = np.concatenate([first, later], axis=1).ravel()
    symbols = (differences + _LARGEST_DIFFERENCE).astype(np.int32)
    return symbols, min(range(NUM_ROWS), key=lambda row: symbol_bits(symbols, row))


def gains_of(symbols: Integers) -> Integers:
    """Gains `[band, block]` of the symbols that `gain_symbols` gave.

    Raises:
        BitstreamError: If a gain is larger than an encoder writes.
    """
    differences = symbols.reshape(NUM_BANDS, -1) - np.int32(_LARGEST_DIFFERENCE)
    differences[:, 0] = np.cumsum(differences[:, 0])
    gains = np.cumsum(differences, axis=1, dtype=np.int32)
    largest = int(np.abs(gains).max())
    if largest > MAX_STEPS:
        raise BitstreamError(
            f"expected gains of at most {MAX_STEPS} steps, got {largest}; "
            "copy the file again from its source"
        )
    return gains


def gain_row(reader: ByteReader) -> int:
    """Read which row the symbols were coded with.

    Raises:
        BitstreamError: If there is no such row.
    """
    row = reader.take(1)[0]
    if row >= NUM_ROWS:
        raise BitstreamError(
            f"expected a row of gains below {NUM_ROWS}, got {row}; "
            "copy the file again from its source"
        )
    return row


def symbol_bits(symbols: Integers, row: int) -> float:
    """What the symbols cost under a row."""
    return float((FREQUENCY_BITS - np.log2(GAIN_TABLE.row(row)[symbols])).sum())


def _gain_table() -> CodeTable:
    """Row r: a difference d has a chance of about (r/16)^|d|; whole numbers only."""
    rows = np.ones((NUM_ROWS, 2 * _LARGEST_DIFFERENCE + 1), dtype=np.int64)
    for row in range(NUM_ROWS):
        weight = ((1 << FREQUENCY_BITS) * (NUM_ROWS - row)) // (NUM_ROWS + row)
        for distance in range(1, _LARGEST_DIFFERENCE + 1):
            weight = weight * row // NUM_ROWS
            rows[row, [_LARGEST_DIFFERENCE - distance, _LARGEST_DIFFERENCE + distance]] += weight
        rows[row, _LARGEST_DIFFERENCE] += (1 << FREQUENCY_BITS) - rows[row].sum()
    return CodeTable(rows.astype(np.int32)[None, None])


GAIN_TABLE = _gain_table()
"""The same for every model and file."""
