"""Folders of small sounds for the commands that measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiovae.audio import Clip, write_audio
from tests.tones import SAMPLE_RATE, tones

SECONDS = 0.8
_HUM_SEED = 0
_BACKGROUND = 0.01


def write_sounds(folder: Path, count: int, noise: float = 0.0, first: int = 0) -> Path:
    """Tones, each its own, with some noise in their middle."""
    for index in range(first, first + count):
        _write(folder / f"{index:03d}.wav", tones(int(SECONDS * SAMPLE_RATE), index), noise, index)
    return folder


def write_machine(folder: Path, count: int, noise: float = 0.0, first: int = 0) -> Path:
    """The same tones every time, in a background of noise that is drawn anew."""
    for index in range(first, first + count):
        random = np.random.default_rng(index)
        wave = tones(int(SECONDS * SAMPLE_RATE), _HUM_SEED)
        wave += _BACKGROUND * random.standard_normal(len(wave)).astype(np.float32)
        _write(folder / f"{index:03d}.wav", wave, noise, index)
    return folder


def _write(path: Path, wave: np.ndarray, noise: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1000 + seed)
    middle = slice(len(wave) // 3, len(wave) // 2)
    wave[middle] += noise * random.standard_normal(len(wave[middle])).astype(np.float32)
    write_audio(path, Clip(wave[None], SAMPLE_RATE))
