"""Audio below a directory as mono int16, which training keeps in memory and in shards."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audiovae import audio
from audiovae.errors import AudioReadError, ConfigError

INT16_SCALE: Final = 32767.0
_PIECE_SAMPLES: Final = 1 << 21

_LOG = logging.getLogger(__name__)


def audio_paths(directory: Path) -> list[Path]:
    """`audio.audio_files_below`, of which there must be some.

    Raises:
        ConfigError: If there is no directory, or none of its files is named like audio.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: expected a directory of audio, found none; check the path")
    paths = audio.audio_files_below(directory)
    if not paths:
        raise ConfigError(f"{directory}: expected audio files, found none; check the path")
    return paths


def decode_mono(path: Path, sample_rate: int) -> NDArray[np.int16] | None:
    """Mono int16 of a file, a piece at a time; None (and a warning) if it cannot be read."""
    try:
        with audio.ResampledReader(path, sample_rate) as reader:
            samples = np.empty(reader.num_samples, np.int16)
            for start in range(0, len(samples), _PIECE_SAMPLES):
                stop = min(start + _PIECE_SAMPLES, len(samples))
                samples[start:stop] = to_int16(audio.mixed_to_mono(reader.read(start, stop))[0])
    except AudioReadError as error:
        _LOG.warning("left out of training: %s", error)
        return None
    return samples


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples in [-1, 1] as a waveform corpus holds them; what lies beyond is clipped."""
    return np.clip(np.round(samples * INT16_SCALE), -32768, 32767).astype(np.int16)
