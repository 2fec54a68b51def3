"""Peaks above full scale turned down, so that no file of integers clips them.

A decoder that hits every magnitude still misses phases, so partials that were apart in the source
may meet: a third of real clips come out with peaks of 1.0 to 1.9. Cut off, they crackle; turned
down for a few milliseconds by one gain for all channels, they do not, and the image stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, upfirdn

from audiovae.audio import Waveform

CEILING = 0.97
"""Largest value, of samples and between them; what is left is for what these miss."""
_BOX_SAMPLES = 506
_OVERSAMPLING = 4
_HALF_SAMPLES = 12  # of the interpolation: samples on each side of a point between two
_INTERPOLATION = _OVERSAMPLING * firwin(
    2 * _OVERSAMPLING * _HALF_SAMPLES - 1, 1 / _OVERSAMPLING, window=("kaiser", 2.5)
).astype(np.float32)
_MOST_BETWEEN = max(
    float(abs(_INTERPOLATION[at::_OVERSAMPLING]).sum()) for at in range(_OVERSAMPLING)
)
REACH_SAMPLES = 2 * _BOX_SAMPLES - 2 + _HALF_SAMPLES
"""How far from a peak, at the model's rate, samples are still changed: 23 ms."""
_ONE = 1 << 24  # gains are integers while they are summed: a sum cut elsewhere is the same sum


def limit_peaks(sound: Waveform) -> Waveform:
    """Turn down what is above `CEILING`, and its surroundings smoothly.

    Peaks between samples count (true peaks at four times the rate, ITU-R BS.1770, annex 2): a
    resampler finds them. A sample's gain depends on the `REACH_SAMPLES` on either side of it alone,
    bit for bit.

    Args:
        sound: `[channel, sample]`.

    Returns:
        The same shape; `sound` itself where nothing is too loud.
    """
    if np.abs(sound).max(initial=0.0) * _MOST_BETWEEN <= CEILING:
        return sound
    peaks = _true_peaks(sound)
    if peaks.max(initial=0.0) <= CEILING:
        return sound
    needed = np.floor(_ONE * np.minimum(1.0, CEILING / np.maximum(peaks, CEILING)))
    padded = np.pad(needed.astype(np.int64), 2 * _BOX_SAMPLES - 2, constant_values=_ONE)
    lowest = _sliding_minimum(padded, 2 * _BOX_SAMPLES - 1)
    gain = _sliding_sum(_sliding_sum(lowest, _BOX_SAMPLES), _BOX_SAMPLES)
    return (sound * (gain / (_ONE * _BOX_SAMPLES**2))).astype(np.float32)


def _true_peaks(sound: Waveform) -> NDArray[np.float32]:
    """`[sample]`: the largest value of any channel at a sample, and up to the next on each side."""
    first = _OVERSAMPLING * _HALF_SAMPLES - 1  # where the first sample is found again
    fine = np.abs(upfirdn(_INTERPOLATION, sound, up=_OVERSAMPLING, axis=1)).max(axis=0)
    num = sound.shape[1]
    between = fine[first : first + _OVERSAMPLING * num].reshape(num, _OVERSAMPLING)[:, 1:]
    after = between.max(axis=1)  # the last one's are beyond the end
    peaks: NDArray[np.float32] = np.maximum(np.abs(sound).max(axis=0), after)
    peaks[1:] = np.maximum(peaks[1:], after[:-1])
    return peaks


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
