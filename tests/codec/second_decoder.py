"""A second range decoder, gains and angles, from docs/format.md alone, in plain Python."""

from __future__ import annotations

import math
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


def gain_frequencies(row: int) -> list[int]:
    """One row of the table of gains and angles."""
    frequencies = [1] * 127
    weight = 2**24 * (16 - row) // (16 + row)
    for distance in range(1, 64):
        weight = weight * row // 16
        frequencies[63 - distance] += weight
        frequencies[63 + distance] += weight
    frequencies[63] += 2**24 - sum(frequencies)
    return frequencies


def gain_nats(decoder: SecondDecoder, row: int, num_frames: int) -> list[list[float]]:
    """Read the gains behind the last group: nats `[mel][frame]` for 128 bands."""
    return _at_mels(read_grid(decoder, row, num_frames), 1 / 4, num_frames)


def angle_radians(decoder: SecondDecoder, row: int, num_frames: int) -> list[list[float]]:
    """Read the angles behind the gains: radians `[mel][frame]` for 128 bands."""
    return _at_mels(read_grid(decoder, row, num_frames), math.pi / 8, num_frames)


def read_grid(decoder: SecondDecoder, row: int, num_frames: int) -> list[list[int]]:
    """Whole steps `[band][block]`."""
    blocks = max(1, -(-num_frames // 32))
    frequencies = gain_frequencies(row)
    grid: list[list[int]] = []
    for band in range(8):
        grid.append([])
        for block in range(blocks):
            before = grid[band][-1] if block else grid[band - 1][0] if band else 0
            grid[band].append(before + decoder.decode(frequencies))
    return grid


def _at_mels(grid: list[list[int]], step: float, num_frames: int) -> list[list[float]]:
    blocks = len(grid[0])
    return [
        [
            sum(
                by * at * grid[band][block] * step
                for band, by in _neighbours((mel + 0.5) * 8 / 128, 8)
                for block, at in _neighbours((frame + 0.5) * blocks / num_frames, blocks)
            )
            for frame in range(num_frames)
        ]
        for mel in range(128)
    ]


def _neighbours(place: float, count: int) -> list[tuple[int, float]]:
    """The two gains around a place, in widths of their parts, and the share of each."""
    below = math.floor(place - 0.5)
    share = place - 0.5 - below
    return [(min(max(below + one, 0), count - 1), by) for one, by in ((0, 1 - share), (1, share))]
