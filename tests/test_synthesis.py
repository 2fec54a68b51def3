"""`audiovae.synthesis`: Griffin-Lim in its place, and the vocoder called as it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torchaudio.functional import griffinlim

from audiovae.config import SpectrogramConfig
from audiovae.errors import ShapeError
from audiovae.spectrogram import hann_window, log_mel_spectrogram
from audiovae.synthesis import POLISH_STEPS, _iterate, griffin_lim, synthesize
from tests.small_models import tiny_vocoder
from tests.tones import chirp, noise

CONFIG = SpectrogramConfig()
LAG_TOLERANCE_SAMPLES = 16
"""How far Griffin-Lim may move a sound: 0.4 ms; half a hop would be 256 samples."""


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
    found = griffin_lim(log_mel_of(original), CONFIG)[0]
    assert found.shape == original.shape
    assert abs(lag_samples(found, original)) <= LAG_TOLERANCE_SAMPLES


def test_griffin_lim_is_far_closer_than_its_first_phase() -> None:
    target = log_mel_of(chirp(40 * 512))
    errors = [
        float((log_mel_spectrogram(griffin_lim(target, CONFIG, n), CONFIG) - target).abs().mean())
        for n in (0, 32)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_the_iteration_is_torchaudios() -> None:
    magnitude = torch.rand(2, CONFIG.num_bins, 20, generator=torch.Generator().manual_seed(0))
    ours = _iterate(magnitude, torch.zeros(CONFIG.num_bins, 20), CONFIG, iterations=8)
    theirs = griffinlim(
        magnitude,
        window=hann_window(2048, torch.device("cpu")),
        n_fft=2048,
        hop_length=512,
        win_length=2048,
        power=1.0,
        n_iter=8,
        momentum=0.99,
        length=None,
        rand_init=False,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_same_seed_same_sound_another_seed_another() -> None:
    target = log_mel_of(noise(10 * 512))
    first, again, other = (griffin_lim(target, CONFIG, 4, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_sound_depends_neither_on_its_row_nor_on_its_neighbours() -> None:
    batch = torch.cat([log_mel_of(noise(10 * 512, seed=s)) for s in range(3)])
    together = griffin_lim(batch, CONFIG, 4)
    turned = griffin_lim(batch.flip(0), CONFIG, 4).flip(0)
    assert torch.equal(together, turned)


def test_threads_do_not_disturb_each_other_nor_the_global_generator() -> None:
    targets = [log_mel_of(noise(10 * 512, seed=s)) for s in range(6)]
    before = torch.get_rng_state()
    alone = [griffin_lim(target, CONFIG, 4) for target in targets]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda target: griffin_lim(target, CONFIG, 4), targets))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_padding_is_silent_and_never_heard() -> None:
    target = log_mel_of(noise(20 * 512))
    count = torch.tensor([20])
    quiet = torch.cat([target, torch.full((1, 128, 12), CONFIG.log_floor)], dim=2)
    loud = torch.cat([target, torch.full((1, 128, 12), 3.0)], dim=2)
    sounds = [synthesize(x, count, None) for x in (quiet, loud)]
    assert torch.equal(*sounds)
    assert sounds[0].shape == (1, 32 * 512)
    assert not sounds[0][:, 20 * 512 :].any()
    assert sounds[0][:, : 20 * 512].square().mean().sqrt() > 0.05


def test_with_a_vocoder_it_is_the_vocoders_sound() -> None:
    target, count = log_mel_of(noise(10 * 512)), torch.tensor([7])
    vocoder = tiny_vocoder()
    polished = vocoder.polish(vocoder.predict(target, count), POLISH_STEPS, count)
    assert torch.equal(synthesize(target, count, vocoder), polished)


def test_silence_stays_silent() -> None:
    sound = griffin_lim(torch.full((1, 128, 10), CONFIG.log_floor), CONFIG, 4)
    assert torch.isfinite(sound).all()
    assert float(sound.abs().max()) < 1e-4  # -80 dB: below 16 bits' last but one


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected log_mel \[batch, 128, frame\]"):
        griffin_lim(torch.zeros(128, 10), CONFIG)
