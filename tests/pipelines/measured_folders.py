"""Folders of small sounds, and a tiny model, for the commands that measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiovae.audio import Clip, write_audio
from tests.tones import SAMPLE_RATE, tones

SECONDS = 0.8


def write_sounds(folder: Path, count: int, noise: float = 0.0, first: int = 0) -> Path:
    """Tones, with some noise in their middle."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        wave = tones(int(SECONDS * SAMPLE_RATE), index)
        random = np.random.default_rng(index)
        middle = slice(len(wave) // 3, len(wave) // 2)
        wave[middle] += noise * random.standard_normal(len(wave[middle])).astype(np.float32)
        write_audio(folder / f"{index:03d}.wav", Clip(wave[None], SAMPLE_RATE))
    return folder
