"""The values that audio input and output share: file facts, clips, limits, messages.

Glossary: a *sample* is one moment of one channel, counted per channel; `waveform` is
`[channel, sample]`, float32, nominally in [-1, 1].
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Waveform: TypeAlias = NDArray[np.float32]
AudioPath: TypeAlias = str | os.PathLike[str]

MIN_SAMPLE_RATE = 1_000
MAX_SAMPLE_RATE = 768_000
MAX_CHANNELS = 32

CUT_SHORT_REMEDY = "copy the file again from its source, or repair it with `ffmpeg -i IN OUT`"


@dataclass(frozen=True)
class AudioInfo:
    """What a file says, and what was checked, about the audio it holds.

    Attributes:
        sample_rate: Hz.
        num_channels: 1 to `MAX_CHANNELS`.
        num_samples: Length per channel at `sample_rate`; exactly what reading yields.
        container: Lower-case kind of file by content: "wav", "flac", "ogg", "mp4", ...
        encoding: Upper-case codec: "PCM_16", "FLOAT", "VORBIS", "AAC", ...
        bit_depth: Of the source: 8, 16, 24, 32 or 64; 16 for lossy codecs, A-law and mu-law.
        reader: The library that decodes it.
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    container: str
    encoding: str
    bit_depth: int
    reader: Literal["soundfile", "pyav"]

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


@dataclass(frozen=True)
class Clip:
    """Audio in memory.

    Attributes:
        waveform: `[channel, sample]`, float32, nominally in [-1, 1].
        sample_rate: Hz.
        bit_depth: Of the source; decides 16 or 24 bits when the clip is written back.
    """

    waveform: Waveform
    sample_rate: int
    bit_depth: int = 16

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return int(self.waveform.shape[0])

    @property
    def num_samples(self) -> int:
        """Length per channel."""
        return int(self.waveform.shape[1])

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


def native_path(path: AudioPath) -> str | bytes:
    """An absolute path as libsndfile takes it: bytes, since names need not be UTF-8."""
    absolute = os.path.abspath(os.fspath(path))
    return absolute if os.name == "nt" else os.fsencode(absolute)


def message(path: AudioPath, expected: str, got: str, remedy: str) -> str:
    """Compose the one-line form of every audio error.

    Args:
        path: The file; characters that would break the line are escaped.
        expected: What was expected.
        got: What came instead.
        remedy: What the user can do.

    Returns:
        `"<path>: expected ..., got ...; <what to do>"`.
    """
    name = os.fsdecode(path)
    name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    got = " ".join(got.split())
    return f"{name}: expected {expected}, got {got}; {remedy}"
