from __future__ import annotations

import numpy as np
import pytest

from audiovae.audio import resample
from audiovae.limiter import CEILING, REACH_SAMPLES, limit_peaks

RATE = 44_100


def tone(hz: float, level: float, samples: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(samples) / RATE)).astype(np.float32)


def test_what_is_not_too_loud_is_left_alone() -> None:
    sound = tone(440, 0.99 * CEILING)[None]
    assert limit_peaks(sound) is sound
    assert limit_peaks(sound[:, :0]).shape == (1, 0)


@pytest.mark.parametrize("samples", [1, 7, REACH_SAMPLES, RATE])
def test_nothing_is_above_the_ceiling(samples: int) -> None:
    sound = np.random.default_rng(0).normal(0, 1, (2, samples)).astype(np.float32)
    sound[0, 0] = 40.0
    limited = limit_peaks(sound)
    assert np.abs(limited).max() <= CEILING * (1 + 1e-6)
    assert limited.shape == sound.shape


@pytest.mark.parametrize("rate", [32_000, 48_000, 96_000])
def test_a_resampler_finds_no_peak_that_integers_would_clip(rate: int) -> None:
    generator = np.random.default_rng(2)
    bursts = generator.normal(0, 0.6, RATE) * (np.arange(RATE) % 9_000 < 900)
    sounds = [bursts, np.sign(tone(997, 1.0)), tone(11_025, 1.4), tone(21_000, 1.2)]
    for sound in sounds:
        limited = limit_peaks(sound.astype(np.float32)[None])
        assert np.abs(resample(limited, RATE, rate)).max() <= 1.0


def test_only_the_surroundings_of_a_peak_change_and_all_channels_alike() -> None:
    sound = np.stack([tone(300, 0.5), tone(500, 0.25)])
    sound[0, 20_000] = 2.0
    limited = limit_peaks(sound)
    far = np.abs(np.arange(RATE) - 20_000) > REACH_SAMPLES
    np.testing.assert_array_equal(limited[:, far], sound[:, far])
    audible = (np.abs(sound) > 0.05).all(axis=0)
    gains = limited[:, audible] / sound[:, audible]
    np.testing.assert_allclose(gains[0], gains[1], rtol=1e-5)


def test_a_cut_piece_with_its_surroundings_is_that_of_the_whole() -> None:
    sound = np.random.default_rng(1).normal(0, 0.5, (2, 3 * RATE)).astype(np.float32)
    whole = limit_peaks(sound)
    for start, stop in ((0, 9_000), (9_000, 50_001), (50_001, 3 * RATE)):
        before, after = max(0, start - REACH_SAMPLES), stop + REACH_SAMPLES
        piece = limit_peaks(sound[:, before:after])[:, start - before :][:, : stop - start]
        np.testing.assert_array_equal(piece, whole[:, start:stop])


def test_a_steady_tone_stays_a_tone() -> None:
    """Clipped, a third of it would be overtones."""
    limited = limit_peaks(tone(220, 1.6)[None])[0]
    power = np.abs(np.fft.rfft(limited[:RATE] * np.hanning(RATE))) ** 2
    near = slice(215, 226)  # 1 Hz a bin
    assert power[near].sum() > 0.9999 * power.sum()
