"""Peaks above full scale turned down, so that no file of integers clips them.

A decoder that hits every magnitude still misses phases, so partials that were apart in the source
may meet: a third of real clips come out with peaks of 1.0 to 1.9. Cut off, they crackle; turned
down for a few milliseconds by one gain for all channels, they do not, and the image stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audiovae.audio import Waveform

CEILING = 0.99
"""Largest sample; a little below full scale, for what resampling adds."""
_BOX_SAMPLES = 512
REACH_SAMPLES = 2 * _BOX_SAMPLES - 2
"""How far from a peak, at the model's rate, samples are still changed: 23 ms."""
_ONE = 1 << 24  # gains are integers while they are summed: a sum cut elsewhere is the same sum


def limit_peaks(sound: Waveform) -> Waveform:
    """Turn down what is above `CEILING`, and its surroundings smoothly.

    A sample's gain depends on the `REACH_SAMPLES` on either side of it alone, bit for bit.

    Args:
        sound: `[channel, sample]`.

    Returns:
        The same shape; `sound` itself where nothing is too loud.
    """
    peaks = np.abs(sound).max(axis=0, initial=0.0)  # [sample]
    if peaks.max(initial=0.0) <= CEILING:
        return sound
    needed = np.floor(_ONE * np.minimum(1.0, CEILING / np.maximum(peaks, CEILING)))
    padded = np.pad(needed.astype(np.int64), REACH_SAMPLES, constant_values=_ONE)
    lowest = _sliding_minimum(padded, 2 * _BOX_SAMPLES - 1)
    gain = _sliding_sum(_sliding_sum(lowest, _BOX_SAMPLES), _BOX_SAMPLES)
    return (sound * (gain / (_ONE * _BOX_SAMPLES**2))).astype(np.float32)


def _sliding_minimum(values: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Minimum of every `width` neighbours, `width - 1` fewer than there were."""
    span = 1
    while 2 * span <= width:
        values = np.minimum(values[:-span], values[span:])
        span *= 2
    rest = width - span
    return np.minimum(values[: len(values) - rest], values[rest:])


def _sliding_sum(values: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Sum of every `width` neighbours, `width - 1` fewer than there were."""
    sums: NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    return np.subtract(sums[width:], sums[:-width])
