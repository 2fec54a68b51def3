"""`audiovae.objectives.spectral`: distances of sounds, and phases on a circle."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.config import SpectrogramConfig
from audiovae.objectives.spectral import (
    MEL_DISTANCE_WINDOWS,
    framed_spectrum,
    magnitude_loss,
    mel_distance,
    mel_distances,
    phase_losses,
)
from audiovae.spectrogram import log_mel_spectrogram, mel_filterbank
from tests.tones import SAMPLE_RATE, chirp, noise

CONFIG = SpectrogramConfig()


def phases(seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(seed))


def test_mel_distance_is_zero_for_equals_and_the_sum_of_its_windows() -> None:
    sound, other = chirp(20_000)[None], noise(20_000)[None]
    assert float(mel_distance(sound, sound, SAMPLE_RATE)) == 0.0
    parts = mel_distances(other, sound, SAMPLE_RATE)
    assert tuple(parts) == MEL_DISTANCE_WINDOWS
    assert all(float(part) > 0 for part in parts.values())
    total = sum(float(part) for part in parts.values())
    assert float(mel_distance(other, sound, SAMPLE_RATE)) == pytest.approx(total, rel=1e-5)


def test_a_gain_of_ten_is_a_distance_of_one_a_window() -> None:
    """It is log10 of the magnitude; a few bands are too narrow for any bin, and silent."""
    sound = noise(40_000)[None]
    for distance in mel_distances(10 * sound, sound, SAMPLE_RATE).values():
        assert float(distance) == pytest.approx(1.0, abs=0.02)


def test_the_magnitude_loss_of_silence_has_a_gradient() -> None:
    made = torch.zeros(2, 8192, requires_grad=True)
    magnitude_loss(made, torch.zeros(2, 8192)).backward()
    assert made.grad is not None
    assert torch.isfinite(made.grad).all()


def test_the_magnitude_loss_sees_level_and_not_sign() -> None:
    sound = chirp(20_000)[None]
    assert float(magnitude_loss(sound, sound)) == 0.0
    assert float(magnitude_loss(-sound, sound)) < 1e-5
    assert float(magnitude_loss(0.5 * sound, sound)) > 0.1


def test_the_magnitude_loss_has_a_gradient_at_silence() -> None:
    estimate = torch.zeros(1, 8000, requires_grad=True)
    magnitude_loss(estimate, noise(8000)[None]).backward()  # type: ignore[no-untyped-call]
    assert estimate.grad is not None
    assert torch.isfinite(estimate.grad).all()


def test_the_framed_spectrum_has_the_frames_of_the_log_mel() -> None:
    sound = (noise(40 * 512) + chirp(40 * 512))[None]
    magnitude = framed_spectrum(sound, CONFIG).abs()
    log_mel = (mel_filterbank(CONFIG) @ magnitude).clamp(min=CONFIG.floor).log()
    torch.testing.assert_close(log_mel, log_mel_spectrogram(sound, CONFIG), atol=2e-3, rtol=0)


def test_phase_is_referred_to_the_centre_of_the_window() -> None:
    """A click at a frame's centre has phase zero in every bin."""
    sound = torch.zeros(1, 20 * 512)
    sound[0, 7 * 512 + 256] = 1.0
    phase = framed_spectrum(sound, CONFIG)[0, :, 7].angle()
    assert float(phase.abs().max()) < 1e-3


@pytest.mark.parametrize("turns", [-2, 1, 5])
def test_whole_turns_cost_nothing(turns: int) -> None:
    target, magnitude = phases(), torch.ones(2, 9, 7)
    assert float(phase_losses(target + 2 * math.pi * turns, target, magnitude)) < 1e-4


def test_the_farthest_phase_is_half_a_turn() -> None:
    target, magnitude = phases(), torch.ones(2, 9, 7)
    loss = phase_losses(target + math.pi, target, magnitude)
    assert float(loss) == pytest.approx(math.pi, rel=1e-3)  # its differences agree
    near, far = (float(phase_losses(target + x, target, magnitude)) for x in (0.1, 3.0))
    assert near < far


def test_phase_is_free_where_there_is_no_sound() -> None:
    magnitude = torch.zeros(1, 9, 7)
    magnitude[:, 4:] = 1.0
    target, wrong = torch.zeros(1, 9, 7), torch.zeros(1, 9, 7)
    wrong[:, :4] = 1.0
    loud_wrong = torch.zeros(1, 9, 7)
    loud_wrong[:, 5:] = 1.0
    quiet = phase_losses(wrong, target, magnitude)
    assert float(quiet) < 0.5 * float(phase_losses(loud_wrong, target, magnitude))
