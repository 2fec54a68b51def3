"""`audiovae.spectrogram`: equal to librosa's, and the same bits in every window."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiovae.config import SpectrogramConfig
from audiovae.errors import ShapeError
from audiovae.spectrogram import (
    ReadSamples,
    hann_window,
    inverse_mel_filterbank,
    log_mel_spectrogram,
    log_mel_to_db,
    log_mel_window,
    mel_edges,
    mel_filterbank,
    num_frames,
    padded_samples,
)
from tests.tones import chirp, noise

CONFIG = SpectrogramConfig()
LIBROSA_TOLERANCE_NATS = 1e-3
"""Largest difference from librosa's of a cell within 80 dB of the loudest: 0.009 dB."""
ROUNDING_TOLERANCE_NATS = 0.02
"""Of any cell: farther down, both are the rounding of a float32 Fourier transform."""


def librosa_log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The definition in librosa's words."""
    padded = np.pad(samples, (0, padded_samples(len(samples), CONFIG) - len(samples)))
    margin = (CONFIG.window_samples - CONFIG.hop_samples) // 2
    mel = librosa.feature.melspectrogram(
        y=np.pad(padded, margin, mode="reflect"),
        sr=CONFIG.sample_rate,
        n_fft=CONFIG.window_samples,
        hop_length=CONFIG.hop_samples,
        center=False,
        power=1.0,
        n_mels=CONFIG.num_mels,
        fmin=CONFIG.min_hz,
        fmax=CONFIG.max_hz,
        htk=False,
        norm="slaney",
    )
    logs: NDArray[np.float32] = np.log(np.maximum(mel, CONFIG.floor))
    return logs


def reader_of(samples: torch.Tensor) -> ReadSamples:
    """Reads `[channel, sample]`, and fails on any range outside the signal."""

    def read(start: int, stop: int) -> NDArray[np.float32]:
        assert 0 <= start <= stop <= samples.shape[1]
        return np.ascontiguousarray(samples[:, start:stop].numpy())

    return read


@pytest.mark.parametrize(
    "samples",
    [noise(44_100), chirp(60_000), noise(1000), 1e-4 * noise(30_000), torch.ones(1)],
    ids=["noise", "chirp", "short", "quiet", "one-sample"],
)
def test_equals_librosa(samples: torch.Tensor) -> None:
    ours = log_mel_spectrogram(samples[None], CONFIG)[0].numpy()
    theirs = librosa_log_mel(samples.numpy())
    assert ours.shape == theirs.shape
    difference = np.abs(ours - theirs)
    assert difference.max() < ROUNDING_TOLERANCE_NATS
    assert difference[theirs > theirs.max() - np.log(1e4)].max() < LIBROSA_TOLERANCE_NATS


@given(num_samples=st.integers(1, 10**9))
def test_frames_are_the_samples_rounded_up_to_whole_hops(num_samples: int) -> None:
    frames = num_frames(num_samples, CONFIG)
    assert frames == max(-(-num_samples // 512), 4)
    assert frames * CONFIG.hop_samples == padded_samples(num_samples, CONFIG) >= num_samples


@pytest.mark.parametrize("num_samples", [1, 511, 512, 2047, 2048, 2049, 5000])
def test_shape_follows_the_formula(num_samples: int) -> None:
    log_mel = log_mel_spectrogram(noise(num_samples)[None], CONFIG)
    assert log_mel.shape == (1, CONFIG.num_mels, num_frames(num_samples, CONFIG))


@pytest.mark.parametrize("num_samples", [1, 100, 1500, 2048, 2049, 4096, 5121])
def test_every_window_of_a_short_signal_is_bit_equal(num_samples: int) -> None:
    samples = torch.stack([noise(num_samples), chirp(num_samples + 1)[1:]])
    whole = log_mel_spectrogram(samples, CONFIG)
    total = num_frames(num_samples, CONFIG)
    for first in range(total):
        for last in range(first + 1, total + 1):
            window = log_mel_window(reader_of(samples), num_samples, first, last, CONFIG)
            assert torch.equal(window, whole[:, :, first:last])


@settings(max_examples=40, deadline=None)
@given(num_samples=st.integers(30_000, 120_000), data=st.data())
def test_random_windows_are_bit_equal(num_samples: int, data: st.DataObject) -> None:
    samples = noise(num_samples, seed=num_samples)[None]
    total = num_frames(num_samples, CONFIG)
    first = data.draw(st.integers(0, total - 1))
    last = data.draw(st.integers(first + 1, total))
    window = log_mel_window(reader_of(samples), num_samples, first, last, CONFIG)
    whole = log_mel_spectrogram(samples, CONFIG)
    assert torch.equal(window, whole[:, :, first:last])


def test_a_row_has_the_same_bits_alone_and_in_a_batch() -> None:
    batch = torch.stack([noise(50_000, seed=s) for s in range(5)])
    together = log_mel_spectrogram(batch, CONFIG)
    for row in range(5):
        assert torch.equal(log_mel_spectrogram(batch[row : row + 1], CONFIG)[0], together[row])


@pytest.mark.parametrize(("first", "last"), [(0, 0), (3, 2), (-1, 2), (0, 88)])
def test_a_window_must_lie_in_the_signal(first: int, last: int) -> None:
    with pytest.raises(ShapeError, match=r"inside \[0, 87\)"):
        log_mel_window(reader_of(torch.zeros(1, 44_100)), 44_100, first, last, CONFIG)


def test_silence_is_the_constant_floor() -> None:
    log_mel = log_mel_spectrogram(torch.zeros(1, 5000), CONFIG)
    assert log_mel.unique().numel() == 1
    assert float(log_mel[0, 0, 0]) == pytest.approx(CONFIG.log_floor, abs=1e-6)


def test_gradient_of_silence_and_of_half_a_silence_is_finite() -> None:
    waveform = torch.cat([torch.zeros(10_000), noise(10_000)])[None].requires_grad_()
    log_mel_spectrogram(waveform, CONFIG).sum().backward()  # type: ignore[no-untyped-call]
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()
    assert waveform.grad[0, -5000:].abs().max() > 0


@pytest.mark.parametrize(
    "waveform",
    [torch.zeros(100), torch.zeros(1, 1, 100), torch.zeros(1, 0), torch.zeros(1, 9).double()],
    ids=["no-batch", "three-axes", "empty", "float64"],
)
def test_wrong_waveforms_are_refused_with_a_remedy(waveform: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"expected a float32 waveform \[batch, sample\]"):
        log_mel_spectrogram(waveform, CONFIG)


def test_half_precision_contexts_leave_it_alone() -> None:
    waveform = noise(8000)[None]
    with torch.autocast("cpu", torch.bfloat16):
        inside = log_mel_spectrogram(waveform, CONFIG)
    assert torch.equal(inside, log_mel_spectrogram(waveform, CONFIG))


def test_constants_first_made_in_inference_mode_still_take_part_in_gradients() -> None:
    config = SpectrogramConfig(num_mels=40)
    with torch.inference_mode():
        log_mel_spectrogram(noise(4000)[None], config)
    assert not mel_filterbank(config).is_inference()
    assert not hann_window(config.window_samples, torch.device("cpu")).is_inference()
    waveform = noise(4000)[None].requires_grad_()
    log_mel_spectrogram(waveform, config).sum().backward()  # type: ignore[no-untyped-call]
    assert waveform.grad is not None


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_bands_too_narrow_for_any_bin_are_silent() -> None:
    config = SpectrogramConfig(window_samples=128, hop_samples=32)
    log_mel = log_mel_spectrogram(noise(4000)[None], config)
    empty = (mel_filterbank(config) == 0).all(dim=1)
    assert empty.any()
    assert float(log_mel[0, empty].max()) == pytest.approx(config.log_floor, abs=1e-6)


def test_pseudo_inverse_is_a_right_inverse() -> None:
    product = mel_filterbank(CONFIG).double() @ inverse_mel_filterbank(CONFIG).double()
    assert torch.allclose(product, torch.eye(CONFIG.num_mels).double(), atol=1e-4)


def test_decibels_of_a_factor_of_ten() -> None:
    assert float(log_mel_to_db(torch.log(torch.tensor(10.0)))) == pytest.approx(20.0)


def test_corners_of_the_filters_are_those_of_librosa() -> None:
    hz = librosa.mel_frequencies(CONFIG.num_mels + 2, fmin=CONFIG.min_hz, fmax=CONFIG.max_hz)
    bins = torch.from_numpy(hz) * CONFIG.window_samples / CONFIG.sample_rate
    assert torch.allclose(mel_edges(CONFIG), bins, atol=1e-9)
