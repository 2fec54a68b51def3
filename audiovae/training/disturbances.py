"""Normal sound with something wrong in it: made up, so that a network can learn to tell.

What real faults will be is not known. So the made-up ones are of every size, place and strength: a
patch of the log-mel, from one band and one frame to all of them, soft or hard at its edges, is
made weaker, filled with noise, or filled with another sound, which is either added or takes the
place of what was there (the cut and pasted patches of Li et al., 2021, arXiv:2104.04015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NEPERS_PER_DB = math.log(10) / 20
_WEAKER_SHARE, _NOISE_SHARE = 0.3, 0.25  # the rest is other sounds
_FOREIGN_SHARE = 0.6  # of other sounds; the rest is normal sound in the wrong place
_WEAKER_DB = (3.0, 30.0)
_CONTRAST_DB = (-6.0, 24.0)  # of what is put in, over what is there
_NOISE_DEVIATION = 0.6  # nepers, at most
_WHOLE_SHARE = 0.15  # of patches that take all bands, or all of the time
_MOVED_BANDS = 24
_SECOND_SHARE = 0.3
_NEVER = 1e-9

Frames = NDArray[np.float32]
"""`[mel, frame]`, natural log of magnitude."""


class Disturber:
    """Puts something wrong into normal sound."""

    def __init__(self, foreign: Sequence[Frames], log_floor: float) -> None:
        """Know sounds of any kind, each at least as long as the crops will be."""
        self._foreign, self._floor = foreign, log_floor

    def __call__(
        self, log_mel: Frames, normal: Frames, random: np.random.Generator
    ) -> tuple[Frames, Frames]:
        """Disturb a crop.

        Args:
            log_mel: The crop.
            normal: Another crop of normal sound, which may be put in the wrong place.
            random: What is drawn from.

        Returns:
            The disturbed crop, and by how many nepers each of its cells is another.
        """
        disturbed = self._once(log_mel, normal, random)
        if random.random() < _SECOND_SHARE:
            disturbed = self._once(disturbed, normal, random)
        return disturbed, np.abs(disturbed - log_mel)

    def _once(self, log_mel: Frames, normal: Frames, random: np.random.Generator) -> Frames:
        mask = _patch(log_mel.shape, random)
        level = float((mask * log_mel).sum() / mask.sum())
        result: NDArray[np.floating[Any]]
        put_in: NDArray[np.floating[Any]]
        kind = random.random()
        if kind < _WEAKER_SHARE:
            result = log_mel - random.uniform(*_WEAKER_DB) * _NEPERS_PER_DB * mask
        else:
            loud = level + random.uniform(*_CONTRAST_DB) * _NEPERS_PER_DB
            if kind < _WEAKER_SHARE + _NOISE_SHARE:
                spread = random.uniform(0, _NOISE_DEVIATION)
                put_in = loud + spread * random.standard_normal(log_mel.shape)
                is_added = True
            else:
                other = self._other(normal, random)
                put_in = other + loud - float((mask * other).sum() / mask.sum())
                is_added = random.random() < 0.5
            if is_added:
                result = np.logaddexp(log_mel, put_in + np.log(mask + _NEVER))
            else:
                result = (1 - mask) * log_mel + mask * put_in
        floored: Frames = np.maximum(result, self._floor).astype(np.float32)
        return floored

    def _other(self, normal: Frames, random: np.random.Generator) -> Frames:
        """A stretch of another sound, half of the time moved up or down."""
        other = normal
        if random.random() < _FOREIGN_SHARE:
            sound = self._foreign[int(random.integers(len(self._foreign)))]
            num_frames = normal.shape[1]
            start = random.integers(sound.shape[1] - num_frames + 1)
            other = sound[:, start : start + num_frames]
        if random.random() < 0.5:
            other = np.roll(other, random.integers(-_MOVED_BANDS, _MOVED_BANDS + 1), axis=0)
        return other


def _patch(shape: tuple[int, ...], random: np.random.Generator) -> Frames:
    """`[mel, frame]` in [0, 1]: a rectangle of any size and place, its edges more or less soft."""
    bands, frames = (_side(size, random) for size in shape)
    return np.outer(bands, frames).astype(np.float32)


def _side(size: int, random: np.random.Generator) -> NDArray[np.float64]:
    length = size ** random.random()
    if random.random() < _WHOLE_SHARE:
        length = 1.5 * size
    distance = np.abs(np.arange(size) - random.random() * size)
    softness = (0.05 + 0.45 * random.random()) * length / 6 + 0.1
    outside = np.clip((distance - length / 2) / softness, -30, 30)
    weight: NDArray[np.float64] = 1 / (1 + np.exp(outside))
    return weight
