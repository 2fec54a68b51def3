"""Symbols to bytes and back: the range coder of the `constriction` library, in whole arrays.

Format: `constriction.stream.queue` of version 0.5 (unchanged since 0.1): 32-bit words, 64-bit
state, 24-bit precision (Martin, 1979; Bamler, 2022, arXiv:2201.01741). Frequencies enter as
integers. A row f that sums to 2^24 is handed over as the weights f - 1: the library gives every
symbol 1 and spreads the remaining 2^24 - n in proportion to the weights, which sum to just that,
so the factor is exactly 1 and no rounding happens; all numbers are whole and below 2^53.

Within one call, symbols are coded by ascending row index, and in their given order under one
index: one library call an index, no loop over symbols. The words are stored little-endian without
trailing zero bytes; the decoder reads zeros beyond the end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from audiovae.errors import BitstreamError
from audiovae.models.bottlenecks import SymbolTable

_WORD_BYTES = 4
Integers = NDArray[np.int32]


class SymbolEncoder:
    """Collects arrays of symbols into one stream of bytes."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Integers, indices: Integers, table: SymbolTable) -> None:
        """Append symbols, each under the table row of its index.

        Args:
            symbols: `[symbol]`, each one of its row's.
            indices: `[symbol]`.
            table: Frequencies of the symbols under each row.
        """
        rows = _CodedRows.of(table)
        order, runs = _by_index(indices)
        shifted = (symbols - rows.lowest[indices])[order]
        for index, start, stop in runs:
            self._encoder.encode(shifted[start:stop], rows.model(index))

    def finish(self) -> bytes:
        """Everything that was appended, as bytes."""
        words = self._encoder.get_compressed().astype("<u4")
        return bytes(words.tobytes()).rstrip(b"\0")


class SymbolDecoder:
    """Reads back what a `SymbolEncoder` wrote, call by call.

    Args:
        data: What `finish` gave.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % _WORD_BYTES)
        words = np.frombuffer(padded, dtype="<u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, indices: Integers, table: SymbolTable) -> Integers:
        """Read the symbols `[symbol]` of these row indices `[symbol]` of the encoder's table.

        Raises:
            BitstreamError: If the bytes cannot come from these frequencies.
        """
        rows = _CodedRows.of(table)
        order, runs = _by_index(indices)
        shifted = np.zeros(len(indices), dtype=np.int32)
        try:
            for index, start, stop in runs:
                shifted[start:stop] = self._decoder.decode(rows.model(index), stop - start)
        except (AssertionError, ValueError) as error:  # what constriction raises for bad words
            raise BitstreamError(
                f"expected words of the range coder, got damaged ones ({error}); "
                "copy the file again from its source"
            ) from None
        symbols = np.empty_like(shifted)
        symbols[order] = shifted
        return symbols + rows.lowest[indices]


class _CodedRows:
    """The library's models of a table, each made when it is first needed."""

    def __init__(self, table: SymbolTable) -> None:
        self.lowest = table.lowest().astype(np.int32)
        self._table = table
        self._models: dict[int, Any] = {}

    @staticmethod
    @lru_cache(maxsize=8)
    def of(table: SymbolTable) -> _CodedRows:
        return _CodedRows(table)

    def model(self, index: int) -> Any:
        if index not in self._models:
            weights = self._table.row(index).astype(np.float64) - 1.0
            self._models[index] = constriction.stream.model.Categorical(weights, perfect=False)
        return self._models[index]


def _by_index(indices: Integers) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
    """The coding order, and in it the runs `(index, start, stop)` of each index, ascending."""
    narrow = indices.astype(np.uint16)  # numpy sorts small integers by radix
    order = np.argsort(narrow, kind="stable")
    counts = np.bincount(narrow)
    stops = np.cumsum(counts)
    runs = zip(range(len(counts)), (stops - counts).tolist(), stops.tolist(), strict=True)
    return order, [run for run in runs if run[1] < run[2]]
