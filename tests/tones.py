"""Synthetic signals and corpora for the tests of spectrograms, models and training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.config import ModelConfig, parse_config
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training.data import Corpus

SAMPLE_RATE = 44_100


def noise(num_samples: int, seed: int = 0, level: float = 0.1) -> Tensor:
    """White noise `[sample]`."""
    return level * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


def chirp(num_samples: int, start_hz: float = 100.0, stop_hz: float = 8000.0) -> Tensor:
    """A sine whose frequency rises evenly, `[sample]`."""
    seconds = torch.arange(num_samples, dtype=torch.float64) / SAMPLE_RATE
    slope = (stop_hz - start_hz) / float(seconds[-1])
    phase = 2 * torch.pi * (start_hz * seconds + 0.5 * slope * seconds.square())
    return (0.5 * phase.sin()).float()


def tones(num_samples: int, seed: int) -> NDArray[np.float32]:
    """A few decaying sines, `[sample]`: something a tiny model can learn."""
    random = np.random.default_rng(seed)
    seconds = np.arange(num_samples) / SAMPLE_RATE
    total = np.zeros(num_samples)
    for _ in range(4):
        hz, decay = random.uniform(80, 3000), random.uniform(0, 3)
        total += 0.1 * np.sin(2 * np.pi * hz * seconds) * np.exp(-decay * seconds)
    return total.astype(np.float32)


def write_tones(folder: Path, count: int = 4, seconds: float = 1.0) -> Path:
    """A folder of WAV files."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        samples = tones(int(seconds * SAMPLE_RATE), index)
        soundfile.write(folder / f"tone_{index}.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    return folder


def waveform_corpus(count: int = 4, seconds: float = 1.0) -> Corpus:
    """Tones as int16."""
    clips = [
        torch.from_numpy((32767 * tones(int(seconds * SAMPLE_RATE), i)).astype(np.int16))
        for i in range(count)
    ]
    return Corpus.of_clips(clips, [f"tone_{i}.wav" for i in range(count)])


def log_mel_corpus(count: int = 4, seconds: float = 2.0) -> Corpus:
    """Tones as float16 log-mel frames."""
    config = ModelConfig().spectrogram
    clips = [
        log_mel_spectrogram(torch.from_numpy(tones(int(seconds * SAMPLE_RATE), i))[None], config)
        for i in range(count)
    ]
    frames = [clip[0].T.half() for clip in clips]
    return Corpus.of_clips(frames, [f"tone_{i}.wav" for i in range(count)])


def tiny_config(**tables: object) -> ModelConfig:
    """A model that trains in seconds: one narrow block a part; `tables` replace its tables."""
    level = {"groups": 1, "channels": 4, "encoder_blocks": 0, "decoder_blocks": 1}
    training = {"batch_size": 4, "crop_frames": 64, "learning_rate": 4e-3, "warmup_steps": 5}
    given: dict[str, object] = {
        "name": "test",
        "vae": {
            "width": 16,
            "expansion": 2,
            "head_blocks": 0,
            "levels": [{"stride": 4, **level}, {"stride": 8, **level}],
        },
        "vocoder": {"width": 16, "num_blocks": 1},
        "discriminators": {
            "periods": [2, 3],
            "period_channels": [4, 8],
            "stft_windows": [512],
            "stft_channels": 4,
            "crop_samples": 4096,
        },
        "adversarial": {"start_fraction": 1},
    }
    given.update(tables)
    own = given.get("training", {})
    assert isinstance(own, dict)
    given["training"] = {**training, **own}
    return parse_config(given)
