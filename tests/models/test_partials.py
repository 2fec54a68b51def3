"""`audiovae.models.partials`: sinusoids that stand alone become narrow; nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiovae.config import SpectrogramConfig
from audiovae.models.partials import BarePartials
from audiovae.objectives.spectral import framed_spectrum
from audiovae.spectrogram import inverse_mel_filterbank, log_mel_spectrogram
from tests.tones import SAMPLE_RATE, noise

CONFIG = SpectrogramConfig()
FRAMES = 12
MIDDLE = FRAMES // 2
MAX_ERROR = 0.2
"""Of a magnitude: the lobe is not quite a raised cosine, and the window has side lobes."""


def tone(*hz: float) -> Tensor:
    seconds = torch.arange(FRAMES * CONFIG.hop_samples, dtype=torch.float64) / SAMPLE_RATE
    return sum((0.4 * (2 * math.pi * one * seconds).sin() for one in hz), 0 * seconds).float()


def guessed(samples: Tensor) -> tuple[Tensor, Tensor]:
    """First guess of the magnitude, and its log-mel: `[1, frame, bin]`, `[1, frame, mel]`."""
    log_mel = log_mel_spectrogram(samples[None], CONFIG).transpose(1, 2)
    magnitude = log_mel.exp() @ inverse_mel_filterbank(CONFIG).T
    return magnitude.clamp(min=CONFIG.floor), log_mel


def narrowed(samples: Tensor) -> Tensor:
    """`[bin]` of a frame amid the sound."""
    narrow: Tensor = BarePartials(CONFIG)(*guessed(samples))[0, MIDDLE]
    return narrow


def true_magnitude(samples: Tensor) -> Tensor:
    return framed_spectrum(samples[None], CONFIG).abs()[0, :, MIDDLE]


@pytest.mark.parametrize("hz", [3_500.0, 5_001.0, 6_745.0, 9_000.0, 15_003.0, 21_000.0])
def test_a_tone_has_its_own_magnitude(hz: float) -> None:
    samples = tone(hz)
    expected, found = true_magnitude(samples), narrowed(samples)
    before = guessed(samples)[0][0, MIDDLE]
    error, error_before = ((one - expected).norm() / expected.norm() for one in (found, before))
    assert float(error) < MAX_ERROR
    assert float(error_before) > 2 * float(error)


def test_tones_far_apart_are_each_on_their_own() -> None:
    samples = tone(4_000.0, 7_003.0, 12_345.0)
    expected, found = true_magnitude(samples), narrowed(samples)
    assert float((found - expected).norm() / expected.norm()) < MAX_ERROR


def test_a_partial_among_others_is_left_as_it_is() -> None:
    magnitude, log_mel = guessed(tone(9_000.0, 9_500.0))  # neighbouring bands
    assert torch.equal(BarePartials(CONFIG)(magnitude, log_mel), magnitude)


def test_silence_is_left_as_it_is_and_noise_nearly() -> None:
    silence, white = torch.zeros(FRAMES * CONFIG.hop_samples), noise(FRAMES * CONFIG.hop_samples)
    for samples, share in ((silence, 0.0), (white, 0.005)):
        magnitude, log_mel = guessed(samples)
        changed = BarePartials(CONFIG)(magnitude, log_mel) != magnitude
        assert float(changed.float().mean()) <= share


def test_gradients_are_finite() -> None:
    magnitude, log_mel = (one.clone().requires_grad_() for one in guessed(tone(6_745.0)))
    BarePartials(CONFIG)(magnitude, log_mel).sum().backward()
    for one in (magnitude, log_mel):
        assert one.grad is not None
        assert torch.isfinite(one.grad).all()
