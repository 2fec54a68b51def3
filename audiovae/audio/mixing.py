"""All channels of a sound as one."""

from __future__ import annotations

import numpy as np

from audiovae.audio.values import Waveform

_LEFT_OF_INCOHERENT = 0.2  # of the power that the mean of unrelated channels has: they cancel


def mixed_to_mono(waveform: Waveform) -> Waveform:
    """The mean of the channels; the strongest one where they cancel each other.

    A cable with its poles exchanged makes one channel the negative of another: their mean would
    be silence, and taken for such.

    Args:
        waveform: `[channel, sample]`.

    Returns:
        `[1, sample]`.
    """
    if len(waveform) == 1:
        return waveform
    mean: Waveform = waveform.mean(axis=0, keepdims=True, dtype=np.float32)
    powers = np.square(waveform, dtype=np.float64).sum(axis=1)
    incoherent = powers.mean() / len(waveform)
    if np.square(mean, dtype=np.float64).sum() >= _LEFT_OF_INCOHERENT * incoherent:
        return mean
    strongest = int(powers.argmax())
    return waveform[strongest : strongest + 1]
