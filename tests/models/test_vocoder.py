"""`audiovae.models.vocoder`: local, masked, and right in phase and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.config import SpectrogramConfig, VocoderConfig
from audiovae.errors import ShapeError
from audiovae.models.vocoder import PredictedSTFT, Vocoder
from audiovae.objectives.spectral import framed_spectrum
from audiovae.spectrogram import log_mel_spectrogram, mel_filterbank
from tests.small_models import stirred, tiny_vocoder
from tests.tones import chirp, noise

CONFIG = SpectrogramConfig()
HOP = CONFIG.hop_samples
WINDOW_TOLERANCE = 1e-5
"""Largest difference of a sample made in a window from the whole file's."""
INVERSION_TOLERANCE = 1e-5
"""Rounding of a Fourier transform and back, full scale 1."""


def log_mel(frames: int, seed: int = 0) -> Tensor:
    samples = noise(frames * HOP, seed) + chirp(frames * HOP)
    return log_mel_spectrogram(samples[None], CONFIG)


@pytest.mark.parametrize(("num_blocks", "kernel_size"), [(1, 3), (2, 7), (3, 5)])
def test_receptive_field_is_context_frames(num_blocks: int, kernel_size: int) -> None:
    torch.manual_seed(0)
    config = VocoderConfig(width=16, num_blocks=num_blocks, kernel_size=kernel_size)
    vocoder = Vocoder(config, CONFIG)
    torch.nn.init.normal_(vocoder.magnitude_head.weight)  # or magnitude would see one frame only
    context = vocoder.context_frames()
    middle = context + 4
    mel = log_mel(2 * middle + 1).requires_grad_()
    vocoder(mel)[0, middle * HOP : (middle + 1) * HOP].square().sum().backward()
    assert mel.grad is not None
    reached = mel.grad[0].abs().sum(dim=0).nonzero().flatten()
    assert int(reached.min()) == middle - context
    assert int(reached.max()) == middle + context


@pytest.mark.parametrize("window_frames", [1, 7, 33, 64])
@torch.inference_mode()
def test_sound_made_in_windows_is_that_of_the_whole(window_frames: int) -> None:
    vocoder, mel = tiny_vocoder(), log_mel(100)
    total, context = mel.shape[2], vocoder.context_frames()
    whole = vocoder(mel)
    assert whole.abs().max() > 0.1
    pieces = []
    for start in range(0, total, window_frames):
        stop = min(start + window_frames, total)
        first, last = max(0, start - context), min(total, stop + context)
        sound = vocoder(mel[:, :, first:last])
        pieces.append(sound[:, (start - first) * HOP : (stop - first) * HOP])
    assert float((torch.cat(pieces, dim=1) - whole).abs().max()) < WINDOW_TOLERANCE


@torch.inference_mode()
def test_a_padded_signal_sounds_like_the_unpadded_one_and_then_is_silent() -> None:
    vocoder, mel = tiny_vocoder(), log_mel(50)
    alone = vocoder(mel)
    for filling in (0.0, 5.0):
        padded = torch.nn.functional.pad(mel, (0, 30), value=filling)
        sound = vocoder(padded, torch.tensor([50]))
        assert float((sound[:, : 50 * HOP] - alone).abs().max()) < WINDOW_TOLERANCE
        assert not sound[:, 50 * HOP :].any()


@torch.inference_mode()
def test_a_row_sounds_the_same_whatever_else_is_in_the_batch() -> None:
    """To rounding; what files are made of has the very same bits: tests/test_synthesis.py."""
    vocoder = tiny_vocoder()
    batch = torch.cat([log_mel(40, seed=s) for s in range(3)])
    counts = torch.tensor([40, 22, 31])
    sounds = vocoder(batch, counts)
    others = vocoder(torch.cat([batch[:1], -batch[1:]]), torch.tensor([40, 40, 1]))
    torch.testing.assert_close(sounds[0], others[0], atol=WINDOW_TOLERANCE, rtol=0)
    rolled = vocoder(batch.roll(1, 0), counts.roll(1))
    torch.testing.assert_close(sounds.roll(1, 0), rolled, atol=WINDOW_TOLERANCE, rtol=0)


@torch.inference_mode()
def test_untrained_magnitude_is_the_pseudo_inverse() -> None:
    vocoder = Vocoder(VocoderConfig(width=16, num_blocks=1), CONFIG)
    mel = log_mel(20)
    first = vocoder.first_log_magnitude(mel)
    expected = (torch.linalg.pinv(mel_filterbank(CONFIG)) @ mel.exp()).clamp(min=CONFIG.floor)
    torch.testing.assert_close(first.exp(), expected, rtol=1e-2, atol=1e-3)
    assert torch.equal(vocoder.predict(mel).log_magnitude, first.clamp(max=8.0))
    # It explains the very log-mel it was made from, but for what was below zero.
    explained = (mel_filterbank(CONFIG) @ first.exp()).log()
    assert float((explained - mel).abs().mean()) < 0.1


@torch.inference_mode()
def test_first_guess_is_never_made_in_half_precision() -> None:
    vocoder, mel = tiny_vocoder(), log_mel(8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = vocoder.first_log_magnitude(mel)
    assert torch.equal(inside, vocoder.first_log_magnitude(mel))


@torch.inference_mode()
def test_the_true_stft_gives_the_sound_back() -> None:
    """Frames, phase reference and overlap-add agree with the spectrogram's frames."""
    samples = (noise(60 * HOP) + chirp(60 * HOP))[None]
    spectrum = framed_spectrum(samples, CONFIG)
    bands = torch.zeros(1, CONFIG.num_mels, 60)  # without polish they are not heard
    stft = PredictedSTFT(spectrum.abs().clamp(min=1e-9).log(), spectrum.angle(), bands)
    sound = tiny_vocoder().polish(stft, 0)
    assert sound.shape == samples.shape
    inner = slice(2048, -2048)  # at the ends the reflected margins are cut off
    assert float((sound - samples)[:, inner].abs().max()) < INVERSION_TOLERANCE


def test_gradients_of_the_waveform_are_right_in_every_bin() -> None:
    """Odd bins once had the gradient of a negative magnitude."""
    spectrogram = SpectrogramConfig(window_samples=32, hop_samples=8, num_mels=4)
    vocoder = Vocoder(VocoderConfig(width=8, num_blocks=1), spectrogram).double()
    draw = torch.Generator().manual_seed(0)
    shape = (1, spectrogram.num_bins, 5)
    magnitude = torch.randn(shape, generator=draw, dtype=torch.float64)
    phase = 3 * torch.rand(shape, generator=draw, dtype=torch.float64)
    bands = torch.zeros(1, spectrogram.num_mels, 5)

    def sound(log_magnitude: Tensor, phase: Tensor) -> Tensor:
        return vocoder.polish(PredictedSTFT(log_magnitude, phase, bands), 0)

    assert torch.autograd.gradcheck(sound, (magnitude.requires_grad_(), phase.requires_grad_()))


def test_the_sound_pulls_at_the_levels_too() -> None:
    vocoder = stirred(Vocoder(VocoderConfig(width=16, num_blocks=1), CONFIG), seed=0)
    predicted = vocoder.predict(log_mel(12).requires_grad_())
    parts = predicted.learnt()
    assert len(parts) == 3
    for gradient in torch.autograd.grad(vocoder.polish(predicted, 4).square().sum(), parts):
        assert torch.isfinite(gradient).all()
        assert gradient.any()
    true = vocoder.requires_grad_().predict(log_mel(12))
    assert len(true.learnt()) == 2  # nothing comes before a true log-mel


def test_extreme_inputs_stay_finite() -> None:
    vocoder = tiny_vocoder()
    for value in (-100.0, 50.0):
        assert torch.isfinite(vocoder(torch.full((1, 128, 10), value))).all()


@pytest.mark.parametrize("shape", [(128, 10), (1, 80, 10)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected log_mel \[batch, 128, frame\]"):
        tiny_vocoder()(torch.zeros(shape))
