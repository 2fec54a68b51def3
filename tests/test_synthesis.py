"""`audiovae.synthesis`: the vocoder with its polish, and Griffin-Lim in its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from audiovae.chunks import STEP_FRAMES
from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError, ShapeError
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.synthesis import MAX_POLISH_STEPS, Synthesizer, griffin_lim
from tests.small_models import tiny_vocoder
from tests.tones import chirp, noise

CONFIG = SpectrogramConfig()
HOP = CONFIG.hop_samples
LAG_TOLERANCE_SAMPLES = 16
"""How far Griffin-Lim may move a sound, mean of twelve: 0.4 ms; half a hop would be 256 samples."""
WINDOW_TOLERANCE = 2e-5
"""Largest difference of a sample made in a window from the whole file's: rounding of the FFT,
and its growth over the steps."""


def log_mel_of(samples: Tensor) -> Tensor:
    return log_mel_spectrogram(samples[None], CONFIG)


def lag_samples(found: Tensor, original: Tensor) -> int:
    """Where the cross-correlation of two envelopes peaks; 0 for sounds in the same place."""
    size = 2 * len(original)
    spectra = [torch.fft.rfft(x.abs() - x.abs().mean(), n=size) for x in (found, original)]
    peak = int(torch.fft.irfft(spectra[0] * spectra[1].conj(), n=size).argmax())
    return peak if peak < len(original) else peak - size


def clicks() -> Tensor:
    """Short bursts at odd places, over silence."""
    samples = torch.zeros(40 * 512)
    for place in (3000, 9111, 15_777):
        samples[place : place + 200] = noise(200, seed=place, level=0.5)
    return samples


def short_chirp() -> Tensor:
    """A chirp with a beginning and an end."""
    return torch.cat([torch.zeros(5003), chirp(8000), torch.zeros(40 * 512 - 13_003)])


@pytest.mark.parametrize("make", [clicks, short_chirp])
def test_griffin_lim_puts_a_sound_where_it_was(make: object) -> None:
    assert callable(make)
    original = make()
    sounds = [griffin_lim(log_mel_of(original), CONFIG, seed=seed)[0] for seed in range(12)]
    assert {found.shape for found in sounds} == {original.shape}
    lags = [lag_samples(found, original) for found in sounds]
    assert abs(sum(lags) / len(lags)) <= LAG_TOLERANCE_SAMPLES


def test_griffin_lim_is_far_closer_than_its_first_phase() -> None:
    target = log_mel_of(chirp(40 * 512))
    errors = [
        float((log_mel_spectrogram(griffin_lim(target, CONFIG, n), CONFIG) - target).abs().mean())
        for n in (0, 32)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_same_seed_same_sound_another_seed_another() -> None:
    target = log_mel_of(noise(10 * 512))
    first, again, other = (griffin_lim(target, CONFIG, 4, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_sound_depends_neither_on_its_row_nor_on_its_neighbours() -> None:
    batch = torch.cat([log_mel_of(noise(10 * 512, seed=s)) for s in range(3)])
    synthesizer, counts = Synthesizer(None), torch.tensor([10, 7, 9])
    together = synthesizer(batch, counts)
    turned = synthesizer(batch.flip(0), counts.flip(0)).flip(0)
    assert torch.equal(together, turned)


def test_threads_do_not_disturb_each_other_nor_the_global_generator() -> None:
    targets = [log_mel_of(noise(10 * 512, seed=s)) for s in range(6)]
    before = torch.get_rng_state()
    alone = [griffin_lim(target, CONFIG, 4) for target in targets]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda target: griffin_lim(target, CONFIG, 4), targets))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frames_phase_belongs_to_its_place_in_the_file() -> None:
    """So two windows of one file agree where they overlap; beyond a chunk's step it begins anew."""
    target, synthesizer = log_mel_of(noise(300 * HOP)), Synthesizer(None)
    context = synthesizer.context_frames
    count = torch.tensor([300])
    whole = synthesizer(target, count, torch.tensor([5]))
    first, last = 140 - context, 160 + context
    window = synthesizer(
        target[:, :, first:last], torch.tensor([last - first]), torch.tensor([5 + first])
    )
    inner = slice(context * HOP, (context + 20) * HOP)
    assert float((whole[:, 140 * HOP : 160 * HOP] - window[:, inner]).abs().max()) < 1e-3
    assert torch.equal(whole, synthesizer(target, count, torch.tensor([5 - STEP_FRAMES])))
    assert not torch.equal(whole, synthesizer(target, count))


@pytest.mark.parametrize("with_vocoder", [False, True])
def test_padding_is_silent_and_never_heard(with_vocoder: bool) -> None:
    synthesizer = Synthesizer(tiny_vocoder() if with_vocoder else None)
    target = log_mel_of(noise(20 * HOP))
    count = torch.tensor([20])
    quiet = torch.cat([target, torch.full((1, 128, 12), CONFIG.log_floor)], dim=2)
    loud = torch.cat([target, torch.full((1, 128, 12), 3.0)], dim=2)
    sounds = [synthesizer(x, count) for x in (quiet, loud)]
    assert torch.equal(*sounds)
    assert sounds[0].shape == (1, 32 * HOP)
    assert not sounds[0][:, 20 * HOP :].any()
    assert sounds[0][:, : 20 * HOP].square().mean().sqrt() > 0.02


@pytest.mark.parametrize("steps", [0, 8])
@torch.inference_mode()
def test_with_a_vocoder_it_is_the_vocoders_sound(steps: int) -> None:
    target, vocoder = log_mel_of(chirp(30 * HOP)), tiny_vocoder()
    expected = vocoder.polish(vocoder.predict(target), steps)
    found = Synthesizer(vocoder, steps)(target, torch.tensor([30]))
    ratio = expected.square().mean() / (found - expected).square().mean()
    assert 10 * ratio.log10() > 20  # its products may be in bfloat16


@pytest.mark.parametrize("steps", [0, 5, 16])
@torch.inference_mode()
def test_sound_made_in_windows_is_that_of_the_whole(steps: int) -> None:
    synthesizer, mel = Synthesizer(tiny_vocoder(), steps), log_mel_of(chirp(300 * HOP))
    total, context = mel.shape[2], synthesizer.context_frames
    whole = synthesizer(mel, torch.tensor([total]))
    assert whole.abs().max() > 0.1
    for start, stop in ((0, 40), (40, 171), (171, 300)):
        first, last = max(0, start - context), min(total, stop + context)
        sound = synthesizer(mel[:, :, first:last], torch.tensor([last - first]))
        inner = sound[:, (start - first) * HOP : (stop - first) * HOP]
        assert float((inner - whole[:, start * HOP : stop * HOP]).abs().max()) < WINDOW_TOLERANCE


@torch.inference_mode()
def test_a_row_has_the_same_bits_whatever_else_is_in_the_batch() -> None:
    synthesizer = Synthesizer(tiny_vocoder())
    batch = torch.cat([log_mel_of(noise(40 * HOP, seed=s)) for s in range(3)])
    counts = torch.tensor([40, 22, 31])
    sounds = synthesizer(batch, counts)
    alone = synthesizer(batch[1:2, :, :22], counts[1:2])
    assert torch.equal(sounds[1, : 22 * HOP], alone[0])
    assert torch.equal(sounds.roll(1, 0), synthesizer(batch.roll(1, 0), counts.roll(1)))


def test_silence_stays_silent() -> None:
    sound = griffin_lim(torch.full((1, 128, 10), CONFIG.log_floor), CONFIG, 4)
    assert torch.isfinite(sound).all()
    assert float(sound.abs().max()) < 1e-4  # -80 dB: below 16 bits' last but one


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected log_mel \[batch, 128, frame\]"):
        Synthesizer(None)(torch.zeros(128, 10), torch.tensor([10]))


@pytest.mark.parametrize("steps", [-1, MAX_POLISH_STEPS + 1])
def test_a_wrong_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 64 polishing steps, got"):
        Synthesizer(tiny_vocoder(), steps)
