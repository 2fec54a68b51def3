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

from audiovae.errors import (
    AudioWriteError,
    ConfigError,
    EmptyAudioError,
    NonFiniteAudioError,
    ShapeError,
)

Waveform: TypeAlias = NDArray[np.float32]
AudioPath: TypeAlias = str | os.PathLike[str]

MIN_SAMPLE_RATE = 1_000
MAX_SAMPLE_RATE = 768_000
MAX_CHANNELS = 32
BIT_DEPTHS = (8, 16, 24, 32, 64)

MAX_MAGNITUDE = 1e9
"""Of a sample: far above what any recording holds, far below where float32 overflows."""

BARE_HEADER_BYTES = 256
"""What a file that never held a sample may weigh; anything longer may hold some yet."""

DAMAGE_REMEDY = (
    "restore the file from its source, or re-encode what remains with `ffmpeg -i IN OUT`"
)
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


@dataclass(frozen=True, eq=False)
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

    def __post_init__(self) -> None:
        """Refuse what is no sound.

        Raises:
            NonFiniteAudioError: If a sample is NaN, infinite, or more than `MAX_MAGNITUDE`.
            ShapeError: If the waveform has no channel axis, no sample, too many channels, or is of
                integers, or its rate or bit depth cannot be.
        """
        wave = self.waveform
        if not isinstance(wave, np.ndarray):
            raise ShapeError(
                f"expected a waveform as a numpy array, got {type(wave).__name__}; convert it, a "
                "tensor with .numpy()"
            )
        if wave.ndim != 2 or not np.issubdtype(wave.dtype, np.floating):
            raise ShapeError(
                f"expected a waveform [channel, sample] of floats in [-1, 1], got {wave.dtype} "
                f"{list(wave.shape)}; add the channel axis with waveform[None], and divide "
                "integers by their full scale"
            )
        if not (0 < wave.shape[0] <= MAX_CHANNELS and wave.shape[1]):
            raise ShapeError(
                f"expected 1 to {MAX_CHANNELS} channels with at least one sample, got "
                f"{list(wave.shape)} as [channel, sample]; transpose it if its axes are exchanged"
            )
        rate, bits = self.sample_rate, self.bit_depth
        is_whole = isinstance(rate, (int, np.integer))
        if not (is_whole and MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE):
            raise ShapeError(
                f"expected a whole sample rate of {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, got "
                f"{rate!r}; round it, or resample"
            )
        if bits not in BIT_DEPTHS:
            raise ShapeError(
                f"expected a bit depth of {', '.join(map(str, BIT_DEPTHS))}, got {bits!r}; 24 "
                "holds all that is written"
            )
        if not is_usable(wave):
            raise NonFiniteAudioError(
                f"expected finite samples of at most {MAX_MAGNITUDE:g} times full scale, got NaN, "
                "infinity or more in a waveform; replace them, with numpy.nan_to_num for instance"
            )

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


def is_usable(waveform: Waveform) -> bool:
    """Whether all samples are finite and none is beyond `MAX_MAGNITUDE`."""
    extremes = (waveform.min(), waveform.max()) if waveform.size else (0.0,)  # NaN if one is
    return all(abs(value) <= MAX_MAGNITUDE for value in extremes)


def sample_range(
    num_samples: int, sample_rate: int, start_seconds: float, duration_seconds: float | None
) -> range:
    """Samples of a time range, clipped to the file.

    >>> sample_range(1000, 100, 2.5, None), sample_range(1000, 100, 9.9, float("inf"))
    (range(250, 1000), range(990, 1000))

    Raises:
        ConfigError: If none of them is in it.
    """
    seconds = num_samples / sample_rate
    start = round(min(max(0.0, start_seconds), seconds) * sample_rate)
    length = num_samples
    if duration_seconds is not None:
        length = round(min(max(0.0, duration_seconds), seconds) * sample_rate)
    chosen = range(start, min(num_samples, start + length))
    if not chosen:
        asked = "all" if duration_seconds is None else f"{duration_seconds} s"
        raise ConfigError(
            f"expected a time range within {seconds:.3f} s, got {asked} from {start_seconds} s on; "
            "choose one inside the file"
        )
    return chosen


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


def no_samples(path: AudioPath) -> EmptyAudioError:
    """The error for a file without a sample; only a bare header may safely be removed."""
    size = os.path.getsize(path)
    got, remedy = "none", "remove this empty file"
    if size > BARE_HEADER_BYTES:
        got = f"none by its header, in a file of {size} bytes"
        remedy = f"{DAMAGE_REMEDY}; remove it only if it never held sound"
    return EmptyAudioError(message(path, "at least one sample", got, remedy))


def unwritable(path: AudioPath, error: Exception) -> AudioWriteError:
    """The error for an output that the system, or a library, refuses to write."""
    reason = getattr(error, "strerror", None) or str(error)
    remedy = "check that the folder exists, allows writing and has space"
    return AudioWriteError(message(path, "a file that can be written", reason, remedy))
