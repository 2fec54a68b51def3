"""Augmentation: what archives hold and a tidy corpus lacks.

Levels, tone, band limits, silence, fades and clipping: a network that has not met them fails on
just those. All randomness comes from the generator that is handed in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import log_mel_to_db
from audiovae.training.crops import to_device

_SILENCE_MARGIN = 0.01  # above float16's rounding of the floor


class _Dice:
    """Draws one number an item of a batch, shaped to broadcast over the item's axes."""

    def __init__(self, like: Tensor, generator: torch.Generator) -> None:
        self._shape = (like.shape[0], *(1 for _ in like.shape[1:]))
        self._device, self._generator = like.device, generator

    def uniform(self, low: float, high: float) -> Tensor:
        draw = torch.rand(self._shape, generator=self._generator) * (high - low) + low
        return to_device(draw, self._device)

    def happens(self, probability: float) -> Tensor:
        return self.uniform(0, 1) < probability


def augment_log_mel(
    log_mel: Tensor, config: SpectrogramConfig, generator: torch.Generator
) -> Tensor:
    """Vary level, tone and band limit of a log-mel, and cut in silence.

    A gain is an addition in log-mel, so all of this costs nothing beside the model. Values stay
    at or above the floor, and digital silence stays at it, as in the spectrogram of a changed
    waveform.

    Args:
        log_mel: `[batch, mel, frame]`, natural log of magnitude.
        config: Gives the floor.
        generator: A CPU generator.
    """
    _, num_mels, frames = log_mel.shape
    dice = _Dice(log_mel, generator)
    decibel = 1.0 / float(log_mel_to_db(torch.ones(1)))
    gain = dice.happens(0.6) * dice.uniform(-24, 9) * decibel
    band = torch.arange(num_mels, device=log_mel.device)[None, :, None] / num_mels
    tilt = dice.happens(0.3) * dice.uniform(-9, 9) * decibel
    changed = log_mel + gain + tilt * (band - 0.5)
    cut_off = dice.happens(0.1) & (band > dice.uniform(0.45, 1.0))
    position = torch.arange(frames, device=log_mel.device)[None, None]
    start = dice.uniform(0, frames)
    stop = start + dice.uniform(4, frames / 2)
    cut_in = dice.happens(0.06) & (position >= start) & (position < stop)
    silent = log_mel <= config.log_floor + _SILENCE_MARGIN
    return changed.masked_fill(cut_off | cut_in | silent, config.log_floor).clamp(
        min=config.log_floor
    )


def augment_waveform(waveform: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Vary the level of a waveform, limit its band, silence, fade and clip it.

    Args:
        waveform: `[batch, sample]`, float32.
        sample_rate: Hz.
        generator: A CPU generator.
    """
    samples = waveform.shape[1]
    dice = _Dice(waveform, generator)
    peak = waveform.abs().amax(dim=1, keepdim=True).clamp(min=1e-4)
    level_db = torch.where(dice.happens(0.7), dice.uniform(-24, 0), dice.uniform(-60, 0))
    gain = torch.where(dice.happens(0.7), 10 ** (level_db / 20) / peak, 1.0)
    spectrum = torch.fft.rfft(waveform * gain)
    frequency = torch.linspace(0, sample_rate / 2, spectrum.shape[1], device=waveform.device)
    cutoff_hz = torch.where(dice.happens(0.2), 1000 * 2 ** dice.uniform(1.0, 4.3), 1e9)
    roll_off = torch.sigmoid((cutoff_hz - frequency) / dice.uniform(50, 400))
    changed: Tensor = torch.fft.irfft(spectrum * roll_off, n=samples)
    position = torch.arange(samples, device=waveform.device)[None]
    start, length = dice.uniform(0, samples), dice.uniform(samples / 64, samples / 2)
    silent = dice.happens(0.1) & (position >= start) & (position < start + length)
    fade = torch.where(dice.happens(0.1), ((position - start) / length).clamp(0, 1), 1.0)
    overdrive = torch.where(dice.happens(0.05), dice.uniform(1, 4), 1.0)
    changed = changed.masked_fill(silent, 0.0) * fade * overdrive
    return changed.clamp(-1, 1)
