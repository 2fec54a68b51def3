"""Loudness of log-mels, and one made as loud as another."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from scipy.signal import freqz
from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.models.blocks import step_mask
from audiovae.spectrogram import mel_filterbank

_FRAMES = 43  # half a second: longer than a note's onset, shorter than a phrase
_MAX_GAIN_NATS = math.log(10) * 12 / 20
_TINY_POWER = 1e-8

# K-weighting of ITU-R BS.1770, tables 1 and 2: numerator and denominator at 48 kHz.
_K_WEIGHTING = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285),
     (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)  # fmt: skip
_K_RATE = 48_000


def as_loud(
    decoded: Tensor, reference: Tensor, num_frames: Tensor, config: SpectrogramConfig
) -> Tensor:
    """Make one log-mel as loud as another over each half second, as far as 12 dB do it.

    Args:
        decoded: `[batch, mel, frame]`, natural log of magnitude.
        reference: `[batch, mel, frame]`, of the wanted loudness.
        num_frames: `[batch]`; frames beyond these do not count.
        config: Of both.
    """
    mask = step_mask(num_frames, decoded.shape[2], 1)[:, 0]  # [batch, frame]
    weights = loudness_weights(config).to(decoded)[:, None]
    wanted, found = (
        functional.avg_pool1d(
            (torch.exp(2 * log_mel) * weights).sum(dim=1) * mask, _FRAMES, 1, _FRAMES // 2
        )
        + _TINY_POWER
        for log_mel in (reference, decoded)
    )
    gain = 0.5 * (wanted / found).log()
    return decoded + gain.clamp(-_MAX_GAIN_NATS, _MAX_GAIN_NATS)[:, None]


@lru_cache(maxsize=4)
def loudness_weights(config: SpectrogramConfig) -> Tensor:
    """`[mel]`: what the squared magnitude of each band counts for the loudness.

    Bands are means over their bins, so that a partial is the smaller in one the wider it is: that
    is undone, and the ear's sensitivity (K-weighting, ITU-R BS.1770) applied at the band's centre.
    The mean weight is 1.
    """
    filters = mel_filterbank(config).double()  # [mel, bin]
    hertz = torch.linspace(0, config.sample_rate / 2, filters.shape[1], dtype=torch.float64)
    centres = ((filters @ hertz) / filters.sum(dim=1)).clamp(max=_K_RATE / 2)
    weights = filters.amax(dim=1).pow(-2)
    for numerator, denominator in _K_WEIGHTING:
        _, response = freqz(numerator, denominator, worN=centres.numpy(), fs=_K_RATE)
        weights = weights * torch.from_numpy(abs(response) ** 2)
    return (weights / weights.mean()).float()
