"""The fundamental frequency of a signal, on the grid of its log-mel.

Estimated by SwiftF0 (Nieradzik, 2025, arXiv:2508.18440), a small network for 46 to 2094 Hz, which
runs at about 150 times real time on one core; it is the optional package of the extra `pitch`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.models.conditioning.pitch import PITCH_CHANNELS, REFERENCE_HZ

_CONFIDENT = 0.5


def pitch_track(samples: NDArray[np.float32], num_frames: int, config: SpectrogramConfig) -> Tensor:
    """The pitch of a mono signal.

    Args:
        samples: `[sample]`, at `config.sample_rate`.
        num_frames: Mel frames of the signal.
        config: The grid of frames.

    Returns:
        `[2, frame]`: octaves above 440 Hz and 1 where there is a pitch, 0 and 0 where there is
        none.

    Raises:
        ConfigError: If the package is not installed.
    """
    track = torch.zeros(PITCH_CHANNELS, num_frames)
    if not len(samples):
        return track
    found = pitch_detector().detect(samples, config.sample_rate)
    # A frame's window lies around the middle of its hop.
    seconds = (np.arange(num_frames) + 0.5) * config.hop_samples / config.sample_rate
    nearest = np.searchsorted(_middles(found.timestamps), seconds)
    voiced = found.confidence[nearest] >= _CONFIDENT
    octaves = np.log2(np.maximum(found.pitch_hz[nearest], 1.0) / REFERENCE_HZ)
    track[0] = torch.from_numpy(np.where(voiced, octaves, 0.0)).float()
    track[1] = torch.from_numpy(voiced).float()
    return track


def _middles(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    return (seconds[1:] + seconds[:-1]) / 2


@lru_cache(maxsize=1)
def pitch_detector() -> Any:
    """SwiftF0, made once: `detect(samples, sample_rate)` gives hertz and confidence by frame.

    Raises:
        ConfigError: If the package is not installed.
    """
    try:
        from swift_f0 import SwiftF0
    except ImportError:
        raise ConfigError(
            "expected the package swift-f0 to find the pitch with, found none; "
            "pip install -e '.[pitch]'"
        ) from None
    return SwiftF0(threads=1, spin=False)
