"""Distances against known answers, invariances and independent implementations."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.analysis import opinion
from audiovae.analysis.metrics import (
    MAX_SI_SDR_DB,
    SILENCE_LUFS,
    Distances,
    integrated_loudness_lufs,
    log_mel_db,
    loudness_error_lu,
    measure,
    si_sdr_db,
    stft_distance,
)
from audiovae.analysis.opinion import has_visqol, pesq_wb_score, visqol_score
from audiovae.errors import ShapeError
from audiovae.objectives.spectral import MEL_DISTANCE_BANDS, MEL_DISTANCE_WINDOWS

RATE = 44_100
HALF_DB = 20 * np.log10(2)
FULL_SCALE_SINE_LUFS = -3.01  # 997 Hz at 0 dBFS: EBU Tech 3341
EXACT = 1e-6
TOLERANCE_DB = 0.02
LIBROSA_TOLERANCE = 1e-4


def noise(seconds: float = 1.0, channels: int = 1, seed: int = 0, size: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(channels, round(seconds * RATE), generator=generator)


def sine(hz: float = 997.0, seconds: float = 2.0, rate: int = RATE) -> Tensor:
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return torch.sin(2 * np.pi * hz * time).float()[None]


def magnitude(wave: Tensor, window: int) -> NDArray[np.float32]:
    return np.abs(
        librosa.stft(wave[0].numpy(), n_fft=window, hop_length=window // 4, pad_mode="reflect")
    )


def librosa_mel_distances(estimate: Tensor, target: Tensor) -> list[float]:
    """The DAC paper's definition, by librosa."""
    distances = []
    for window, bands in zip(MEL_DISTANCE_WINDOWS, MEL_DISTANCE_BANDS, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bands narrower than a bin are empty
            filters = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=bands)
        mels = (filters @ magnitude(wave, window) for wave in (estimate, target))
        logs = [np.log10(np.maximum(mel, 1e-5)) for mel in mels]
        distances.append(float(np.abs(logs[0] - logs[1]).mean()))
    return distances


@pytest.mark.parametrize("channels", [1, 2])
def test_a_sound_is_no_distance_from_itself(channels: int) -> None:
    wave = noise(channels=channels)
    distances = measure(wave, wave.clone(), RATE, with_visqol=False)
    assert distances == Distances(0.0, 0.0, 0.0, 0.0, MAX_SI_SDR_DB, 0.0)


def test_a_known_gain_is_a_known_distance() -> None:
    wave = noise()
    distances = measure(wave / 2, wave, RATE, with_visqol=False)
    assert distances.log_mel_db == pytest.approx(HALF_DB, abs=TOLERANCE_DB)
    assert distances.loudness_error_lu == pytest.approx(HALF_DB, abs=TOLERANCE_DB)
    # log10 2 at each of seven windows, but for the bands of a short window that have no bin.
    assert distances.mel_distance == pytest.approx(7 * np.log10(2), rel=0.15)
    assert distances.mel_distance == pytest.approx(
        sum(librosa_mel_distances(wave / 2, wave)), rel=LIBROSA_TOLERANCE
    )
    assert distances.si_sdr_db == pytest.approx(MAX_SI_SDR_DB)


def test_mel_distance_is_that_of_an_independent_implementation() -> None:
    estimate, target = 0.3 * sine() + noise(2.0, seed=1, size=0.01), noise(2.0)
    by_window = librosa_mel_distances(estimate, target)
    distances = measure(estimate, target, RATE, with_visqol=False)
    assert distances.mel_distance == pytest.approx(sum(by_window), rel=LIBROSA_TOLERANCE)
    assert distances.short == pytest.approx(sum(by_window[:4]), rel=LIBROSA_TOLERANCE)


def test_stft_distance_is_that_of_an_independent_implementation() -> None:
    estimate, target = 0.3 * sine(), noise(2.0)
    expected = 0.0
    for window in (2048, 512):
        sizes = [magnitude(wave, window) for wave in (estimate, target)]
        logs = [np.log10(np.maximum(size, 1e-5) ** 2) for size in sizes]
        expected += np.abs(logs[0] - logs[1]).mean() + np.abs(sizes[0] - sizes[1]).mean()
    assert stft_distance(estimate, target) == pytest.approx(expected, rel=LIBROSA_TOLERANCE)


def test_a_channel_counts_as_much_as_another() -> None:
    left, right = noise(seed=1), noise(seed=2)
    other = noise(seed=3)
    both = measure(other.repeat(2, 1), torch.cat([left, right]), RATE, with_visqol=False)
    alone = [measure(other, wave, RATE, with_visqol=False) for wave in (left, right)]
    for name in ("mel_distance", "short", "log_mel_db", "stft_distance", "si_sdr_db"):
        mean = sum(getattr(one, name) for one in alone) / 2
        assert getattr(both, name) == pytest.approx(mean, rel=1e-4), name


@pytest.mark.parametrize("gain", [0.01, 3.0, -1.0])
def test_si_sdr_does_not_see_scale_or_offset(gain: float) -> None:
    target, estimate = noise(seed=1), noise(seed=1) + noise(seed=2, size=0.05)
    plain = si_sdr_db(estimate, target)
    assert plain == pytest.approx(6.0, abs=0.2)
    assert si_sdr_db(gain * estimate + 0.1, target) == pytest.approx(plain, abs=1e-3)
    assert si_sdr_db(estimate, 0.5 * target - 0.2) == pytest.approx(plain, abs=1e-3)


def test_si_sdr_of_orthogonal_noise_is_the_ratio_of_energies() -> None:
    target, other = sine(1000), sine(2000)
    assert si_sdr_db(target + 0.1 * other, target) == pytest.approx(20.0, abs=1e-3)
    assert si_sdr_db(other, target) == pytest.approx(-MAX_SI_SDR_DB)


def test_silence_has_answers_or_none() -> None:
    silence, wave = torch.zeros(1, RATE), noise()
    same = measure(silence, silence, RATE, is_speech=True, with_visqol=False)
    assert same == Distances(0.0, 0.0, 0.0, 0.0, None, 0.0)
    assert si_sdr_db(silence, wave) == -MAX_SI_SDR_DB
    assert integrated_loudness_lufs(silence, RATE) == SILENCE_LUFS
    assert integrated_loudness_lufs(wave * 1e-6, RATE) == SILENCE_LUFS
    error = loudness_error_lu(silence, wave, RATE)
    assert error is not None
    assert error > 40


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_loudness_of_the_reference_tone(rate: int) -> None:
    mono = integrated_loudness_lufs(sine(rate=rate), rate)
    stereo = integrated_loudness_lufs(sine(rate=rate).repeat(2, 1), rate)
    assert mono == pytest.approx(FULL_SCALE_SINE_LUFS, abs=0.1)
    assert stereo == pytest.approx(FULL_SCALE_SINE_LUFS + 10 * np.log10(2), abs=0.1)


def test_loudness_is_not_defined_for_less_than_a_block_or_many_channels() -> None:
    assert integrated_loudness_lufs(noise(0.3), RATE) is None
    assert integrated_loudness_lufs(noise(channels=6), RATE) is None
    assert measure(noise(0.3), noise(0.3, seed=1), RATE).loudness_error_lu is None


@pytest.mark.parametrize("samples", [1, 500, 1500])
def test_the_shortest_sounds_are_measured(samples: int) -> None:
    wave = noise()[:, :samples]
    distances = measure(wave, torch.zeros_like(wave), RATE, is_speech=True)
    assert distances.mel_distance > 0
    assert distances.visqol is None
    assert distances.pesq_wb is None


def test_log_mel_db_sees_a_missing_band() -> None:
    wave = noise()
    spectrum = torch.fft.rfft(wave)
    spectrum[:, spectrum.shape[1] // 2 :] = 0
    assert log_mel_db(torch.fft.irfft(spectrum, n=wave.shape[1]), wave, RATE) > 10


@pytest.mark.parametrize(
    ("estimate", "target"),
    [
        (torch.zeros(1, 10), torch.zeros(1, 11)),
        (torch.zeros(10), torch.zeros(10)),
        (torch.zeros(1, 0), torch.zeros(1, 0)),
    ],
)
def test_waveforms_of_two_shapes_are_refused(estimate: Tensor, target: Tensor) -> None:
    with pytest.raises(ShapeError, match="of one shape"):
        measure(estimate, target, RATE)


@pytest.fixture
def fresh_packages() -> Iterator[None]:
    opinion._visqol.cache_clear()
    opinion._pesq.cache_clear()
    yield
    opinion._visqol.cache_clear()
    opinion._pesq.cache_clear()


@pytest.mark.usefixtures("fresh_packages")
def test_without_the_optional_packages_their_scores_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "visqol", None)
    monkeypatch.setitem(sys.modules, "pesq", None)
    distances = measure(noise(), noise(seed=1), RATE, is_speech=True)
    assert not opinion.has_visqol()
    assert not opinion.has_pesq()
    assert distances.visqol is None
    assert distances.pesq_wb is None


def test_pesq_of_the_same_speech_is_the_best_there_is() -> None:
    pytest.importorskip("pesq")
    envelope = sine(3, 2.0).abs()
    voice = 0.2 * envelope * sum(sine(150 * k, 2.0) / k for k in range(1, 20))
    same, worse = (pesq_wb_score(voice + noise(2.0, size=s), voice, RATE) for s in (0.0, 0.05))
    assert same == pytest.approx(4.64, abs=0.01)
    assert worse is not None
    assert worse < 3


@pytest.mark.slow  # Numba compiles it on first use
def test_visqol_of_the_same_sound_is_the_best_there_is() -> None:
    if not has_visqol():
        pytest.skip("visqol is not installed")
    wave = 0.3 * sine(440) * sine(2).abs() + noise(2.0, size=0.01)
    same, worse = (visqol_score(w, wave, RATE) for w in (wave, wave + noise(2.0, seed=1)))
    assert same == pytest.approx(4.73, abs=0.01)
    assert worse is not None
    assert worse < 4
    assert visqol_score(torch.zeros_like(wave), torch.zeros_like(wave), RATE) is None
