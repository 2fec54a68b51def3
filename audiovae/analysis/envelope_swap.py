"""What timbre transfer was before networks: the spectral envelope of one sound on another.

WORLD (Morise et al., 2016) takes a voice apart into pitch, envelope and noise; the source's
envelope is moved by the difference of the two sounds' mean log envelopes. It is the row that a
model has to beat, and needs the optional package pyworld.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MIN_POWER = 1e-16
_QUIET_DB = 40.0  # frames this far below the loudest do not count


def has_world() -> bool:
    """Whether the optional package pyworld is installed, and the setuptools it needs."""
    names = ("pyworld", "pkg_resources")
    return all(importlib.util.find_spec(name) is not None for name in names)


def swap_envelope(source: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """The source's pitch and noise under the reference's mean envelope, `[sample]` each."""
    import pyworld

    wave = source.double().numpy()
    pitch_hz, times = pyworld.harvest(wave, sample_rate)
    envelope = pyworld.cheaptrick(wave, pitch_hz, times, sample_rate)
    noise = pyworld.d4c(wave, pitch_hz, times, sample_rate)
    other = reference.double().numpy()
    other_hz, other_times = pyworld.harvest(other, sample_rate)
    other_envelope = pyworld.cheaptrick(other, other_hz, other_times, sample_rate)
    moved = envelope * np.exp(_mean_log(other_envelope) - _mean_log(envelope))
    made = pyworld.synthesize(pitch_hz, moved, noise, sample_rate)
    return torch.from_numpy(made[: len(wave)]).float()


def _mean_log(envelope: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[bin]`: mean log envelope `[frame, bin]` of the frames that are heard."""
    level = 10 * np.log10(envelope.sum(axis=1) + _MIN_POWER)
    heard = envelope[level > level.max() - _QUIET_DB]
    mean: NDArray[np.float64] = np.log(heard + _MIN_POWER).mean(axis=0)
    return mean
