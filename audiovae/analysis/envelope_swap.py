"""What timbre transfer was before networks: the spectral envelope of one sound on another.

WORLD (Morise et al., 2016) takes a voice apart into pitch, envelope and noise; the source's
envelope is moved by the difference of the two sounds' mean log envelopes. It is the row that a
model has to beat, and needs the optional package pyworld.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MIN_POWER = 1e-16
_QUIET_DB = 40.0  # frames this far below the loudest do not count

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WorldParts:
    """A sound taken apart.

    Attributes:
        pitch_hz: `[frame]`, 0 where there is none.
        envelope: `[frame, bin]`, power.
        noise: `[frame, bin]`, share of noise.
        sample_rate: Hz.
        num_samples: Length of the sound.
    """

    pitch_hz: _Floats
    envelope: _Floats
    noise: _Floats
    sample_rate: int
    num_samples: int


def has_world() -> bool:
    """Whether the optional package pyworld is installed, and the setuptools it needs."""
    names = ("pyworld", "pkg_resources")
    return all(importlib.util.find_spec(name) is not None for name in names)


def world_parts(sound: Tensor, sample_rate: int) -> WorldParts:
    """Take a sound `[sample]` apart; takes a fifth of its length."""
    import pyworld

    wave = sound.double().numpy()
    pitch_hz, times = pyworld.harvest(wave, sample_rate)
    envelope = pyworld.cheaptrick(wave, pitch_hz, times, sample_rate)
    noise = pyworld.d4c(wave, pitch_hz, times, sample_rate)
    return WorldParts(pitch_hz, envelope, noise, sample_rate, len(wave))


def swap_envelope(source: WorldParts, reference: WorldParts) -> Tensor:
    """`[sample]`: the source's pitch and noise under the reference's mean envelope."""
    import pyworld

    change = _mean_log(reference.envelope) - _mean_log(source.envelope)
    moved = source.envelope * np.exp(change)
    made = pyworld.synthesize(source.pitch_hz, moved, source.noise, source.sample_rate)
    return torch.from_numpy(made[: source.num_samples]).float()


def _mean_log(envelope: _Floats) -> _Floats:
    """`[bin]`: mean log envelope of the frames that are heard."""
    level = 10 * np.log10(envelope.sum(axis=1) + _MIN_POWER)
    heard = envelope[level > level.max() - _QUIET_DB]
    mean: _Floats = np.log(heard + _MIN_POWER).mean(axis=0)
    return mean
