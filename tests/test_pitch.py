"""The pitch of signals whose pitch is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.pitch import pitch_detector, pitch_track
from audiovae.spectrogram import num_frames
from audiovae.training.conditions import with_pitch
from audiovae.training.data import Corpus, log_mel_corpus

CONFIG = SpectrogramConfig()
RATE = CONFIG.sample_rate
SEMITONE = 1 / 12


def harmonic(hz: float, seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    partials = [0.2 / k * np.sin(2 * np.pi * k * hz * time) for k in range(1, 8)]
    return np.sum(partials, axis=0).astype(np.float32)


def track_of(samples: np.ndarray) -> torch.Tensor:
    pytest.importorskip("swift_f0")
    return pitch_track(samples, num_frames(len(samples), CONFIG), CONFIG)


@pytest.mark.parametrize("hz", [110.0, 440.0, 880.0])
def test_a_tone_has_its_pitch(hz: float) -> None:
    track = track_of(harmonic(hz, 1.0))
    middle = track[:, 10:-10]
    assert float(middle[1].mean()) > 0.95
    assert float((middle[0] - np.log2(hz / 440)).abs().max()) < SEMITONE


def test_noise_and_silence_have_none() -> None:
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.1
    assert float(track_of(noise)[1].mean()) < 0.1
    assert not track_of(np.zeros(RATE, np.float32)).any()
    assert track_of(np.zeros(10, np.float32)).shape == (2, num_frames(10, CONFIG))


def test_a_change_of_pitch_is_where_it_is() -> None:
    track = track_of(np.concatenate([harmonic(220.0, 0.5), harmonic(440.0, 0.5)]))
    jump = int((track[0, 5:-5] > -0.5).float().argmax()) + 5
    assert abs(jump - 0.5 * CONFIG.frames_per_second) <= 3


def test_a_corpus_gets_the_pitch_of_every_frame() -> None:
    pytest.importorskip("swift_f0")
    sound = torch.from_numpy((32767 * harmonic(220.0, 0.6)).astype(np.int16))
    waveforms = Corpus.of_clips([sound, torch.zeros(9000, dtype=torch.int16)], ["a", "b"])
    log_mels = log_mel_corpus(waveforms, CONFIG)
    seen: list[tuple[int, int]] = []
    corpus = with_pitch(log_mels, waveforms, CONFIG, lambda done, total: seen.append((done, total)))
    assert corpus.clip(0).shape == (len(log_mels.clip(0)), CONFIG.num_mels + 2)
    assert torch.equal(corpus.clip(0)[:, :128], log_mels.clip(0))
    assert float(corpus.clip(0)[20, 128]) == pytest.approx(-1.0, abs=SEMITONE)
    assert not corpus.clip(1)[:, 128:].any()
    assert seen == [(1, 2), (2, 2)]


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "swift_f0", None)
    pitch_detector.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install -e '.\[pitch\]'"):
        pitch_track(np.zeros(2000, np.float32), 4, CONFIG)
    pitch_detector.cache_clear()
