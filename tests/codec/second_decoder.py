"""A second range decoder, written from docs/format.md alone, in whole Python numbers."""

from __future__ import annotations

from collections.abc import Sequence

_WORD = 1 << 32
_STATE = 1 << 64


class SecondDecoder:
    """Decodes one symbol at a time."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4)
        self._words = [
            int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4)
        ]
        self._next = 0
        self._lower, self._range = 0, _STATE - 1
        self._point = self._word() * _WORD + self._word()

    def _word(self) -> int:
        word = self._words[self._next] if self._next < len(self._words) else 0
        self._next += 1
        return word

    def decode(self, frequencies: Sequence[int]) -> int:
        """The next residual under one row of the table."""
        scale = self._range >> 24
        quantile = ((self._point - self._lower) % _STATE) // scale
        below = 0
        place = 0
        while quantile >= below + frequencies[place]:  # runs off the row if words are damaged
            below += frequencies[place]
            place += 1
        self._lower = (self._lower + scale * below) % _STATE
        self._range = scale * frequencies[place]
        if self._range < _WORD:
            self._lower = self._lower * _WORD % _STATE
            self._range *= _WORD
            self._point = (self._point * _WORD + self._word()) % _STATE
        return place - len(frequencies) // 2
