"""Normal sound with something wrong in it: made up, so that a network can learn to tell.

What real faults will be is not known. So the made-up ones are of every size, place and strength: a
patch of the log-mel, from one band and one frame to all of them, soft or hard at its edges, is
made weaker, or filled with noise or with normal sound of another place, which is added or takes
the place of what was there (the cut and pasted patches of Li et al., 2021, arXiv:2104.04015).
Foreign sounds, drawn from a VAE's prior, taught nothing that misplaced normal ones do not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_NEPERS_PER_DB = math.log(10) / 20
_WEAKER_SHARE, _NOISE_SHARE = 0.3, 0.25  # the rest is misplaced sound
_WEAKER_DB = (3.0, 30.0)
_CONTRAST_DB = (-6.0, 24.0)  # of what is put in, over what is there
_NOISE_DEVIATION = 0.6  # nepers, at most
_WHOLE_SHARE = 0.15  # of patches that take all bands, or all of the time
_ADDED_SHARE = 0.5  # of misplaced sound; the rest takes the place of what was there
_MOVED_SHARE, _MOVED_BANDS = 0.5, 24  # up or down
_SECOND_SHARE = 0.3
_NEVER = 1e-9

Frames = NDArray[np.float32]
"""`[mel, frame]`, natural log of magnitude."""


def disturb(
    log_mel: Frames, another: Frames, log_floor: float, random: np.random.Generator
) -> tuple[Frames, Frames]:
    """Put something wrong into normal sound.

    Args:
        log_mel: A crop of it.
        another: Another crop of the same shape, of which something may end up in the wrong place.
        log_floor: The least that a log-mel can be.
        random: What is drawn from.

    Returns:
        The disturbed crop, and by how many nepers each of its cells is another.
    """
    disturbed = _disturbed_once(log_mel, another, log_floor, random)
    if random.random() < _SECOND_SHARE:
        disturbed = _disturbed_once(disturbed, another, log_floor, random)
    return disturbed, np.abs(disturbed - log_mel)


def _disturbed_once(
    log_mel: Frames, another: Frames, log_floor: float, random: np.random.Generator
) -> Frames:
    mask = _patch(log_mel.shape, random)
    level = float((mask * log_mel).sum() / mask.sum())
    kind = random.random()
    if kind < _WEAKER_SHARE:
        result = log_mel - random.uniform(*_WEAKER_DB) * _NEPERS_PER_DB * mask
    else:
        loud = level + random.uniform(*_CONTRAST_DB) * _NEPERS_PER_DB
        is_noise = kind < _WEAKER_SHARE + _NOISE_SHARE
        if is_noise:
            spread = random.uniform(0, _NOISE_DEVIATION)
            put_in = loud + spread * random.standard_normal(log_mel.shape)
        else:
            if random.random() < _MOVED_SHARE:
                bands = random.integers(-_MOVED_BANDS, _MOVED_BANDS + 1)
                another = np.roll(another, bands, axis=0)
            put_in = another + loud - float((mask * another).sum() / mask.sum())
        if is_noise or random.random() < _ADDED_SHARE:
            result = np.logaddexp(log_mel, put_in + np.log(mask + _NEVER))
        else:
            result = (1 - mask) * log_mel + mask * put_in
    return np.maximum(result, log_floor).astype(np.float32)


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
    return 1 / (1 + np.exp(np.clip((distance - length / 2) / softness, -30, 30)))
