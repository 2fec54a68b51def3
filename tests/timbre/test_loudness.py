from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.analysis.metrics import integrated_loudness_lufs
from audiovae.config import SpectrogramConfig
from audiovae.models.blocks import step_mask
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.timbre.loudness import as_loud

CONFIG = SpectrogramConfig()
RATE = CONFIG.sample_rate
TIME = torch.arange(2 * RATE) / RATE


def test_loudness_is_that_of_the_reference() -> None:
    draw = torch.Generator().manual_seed(0)
    reference = -4 + torch.randn(2, 128, 64, generator=draw)
    lengths = torch.tensor([64, 20])
    kept = as_loud(reference - 0.7, reference, lengths, CONFIG)
    covered = step_mask(lengths, 64, 1)
    torch.testing.assert_close(kept * covered, reference * covered, rtol=0, atol=1e-4)
    far = as_loud(reference - 9.0, reference, lengths, CONFIG)
    assert float((far - reference)[0].max()) == pytest.approx(-9.0 + 12 / 20 * np.log(10), abs=1e-3)


def partials(hz: float, slope: float) -> Tensor:
    numbers = [n for n in range(1, 60) if n * hz < 16_000]
    return torch.stack([torch.sin(2 * torch.pi * n * hz * TIME) / n**slope for n in numbers]).sum(0)


@pytest.mark.parametrize(
    "sound",
    [partials(1000, 9), partials(220, 0.5), partials(110, 0), partials(5000, 9), partials(80, 1)],
    ids=["1 kHz", "bright", "flat", "5 kHz", "bass"],
)
def test_sounds_that_a_meter_finds_as_loud_need_no_gain(sound: Tensor) -> None:
    made, dull = (at_one_loudness(one) for one in (sound, partials(220, 2)))
    log_mels = log_mel_spectrogram(torch.stack([made, dull]), CONFIG)
    lengths = torch.full((1,), log_mels.shape[2])
    gain = as_loud(log_mels[:1], log_mels[1:], lengths, CONFIG) - log_mels[:1]
    middle = float(gain[0, 0, 40:-40].mean()) * 20 / np.log(10)
    assert middle == pytest.approx(0.0, abs=3.5)  # partials in one band add up


def at_one_loudness(sound: Tensor) -> Tensor:
    loudness = integrated_loudness_lufs(sound[None], RATE)
    assert loudness is not None
    return sound * 10 ** ((-23 - loudness) / 20)
