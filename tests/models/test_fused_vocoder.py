"""`audiovae.models.fused_vocoder`: the same function as the vocoder that was trained."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.config import SpectrogramConfig, VocoderConfig
from audiovae.models.frames import FrameGrid
from audiovae.models.fused_vocoder import FusedVocoder, fast_dtype
from audiovae.models.griffin_lim import polish
from audiovae.models.vocoder import Vocoder
from audiovae.spectrogram import log_mel_spectrogram
from tests.small_models import stirred, tiny_vocoder
from tests.tones import chirp, noise

CONFIG = SpectrogramConfig()
HOP = CONFIG.hop_samples
TOLERANCE = 2e-5
"""Largest difference of a sample in float32; the sums are taken in another order."""
MIN_BFLOAT16_SNR_DB = 25.0


def log_mel(frames: int, seed: int = 0) -> torch.Tensor:
    return log_mel_spectrogram((noise(frames * HOP, seed) + chirp(frames * HOP))[None], CONFIG)


def sound_of(fused: FusedVocoder, mel: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    first = fused.predict(mel, mask)
    grid = FrameGrid(mask, torch.hann_window(CONFIG.window_samples), CONFIG)
    return polish(first.magnitude, first.direction, grid, 0)


@pytest.mark.parametrize(("width", "num_blocks", "kernel_size"), [(24, 1, 3), (32, 3, 7)])
@torch.inference_mode()
def test_float32_is_the_trained_vocoder(width: int, num_blocks: int, kernel_size: int) -> None:
    config = VocoderConfig(width=width, num_blocks=num_blocks, kernel_size=kernel_size)
    vocoder = stirred(Vocoder(config, CONFIG), seed=1)
    mel = torch.cat([log_mel(40, seed=s) for s in (0, 1)])
    counts = torch.tensor([40, 23])
    mask = (torch.arange(40) < counts[:, None]).float()
    expected = vocoder(mel, counts)
    found = sound_of(FusedVocoder(vocoder, torch.float32), mel, mask)
    assert float(expected.abs().max()) > 0.1
    assert float((found - expected).abs().max()) < TOLERANCE


@torch.inference_mode()
def test_bfloat16_is_near() -> None:
    vocoder, mel = tiny_vocoder(), log_mel(40)
    expected = vocoder(mel)
    found = sound_of(FusedVocoder(vocoder, torch.bfloat16), mel, torch.ones(1, 40))
    ratio = expected.square().mean() / (found - expected).square().mean()
    assert 10 * math.log10(float(ratio)) > MIN_BFLOAT16_SNR_DB


@torch.inference_mode()
def test_it_is_made_of_copies() -> None:
    vocoder, mel = stirred(Vocoder(VocoderConfig(width=16, num_blocks=1), CONFIG), 0), log_mel(8)
    before = [parameter.clone() for parameter in vocoder.parameters()]
    FusedVocoder(vocoder, torch.bfloat16).predict(mel, torch.ones(1, 8))
    assert all(map(torch.equal, before, vocoder.parameters()))


@torch.inference_mode()
def test_extreme_inputs_stay_finite() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        fused = FusedVocoder(tiny_vocoder(), dtype)
        for value in (-100.0, 50.0):
            sound = sound_of(fused, torch.full((1, 128, 10), value), torch.ones(1, 10))
            assert torch.isfinite(sound).all()


def test_half_products_only_where_there_are_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for features, dtype in (
        ({"avx2": True}, torch.float32),
        ({"avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=features: told)
        assert fast_dtype(cpu) == dtype
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert fast_dtype(cpu) == torch.float32
