"""Writing audio: whole or not at all, in the original's rate, channels and depth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import soundfile

from audiovae.audio.sinks import Sink, SoundfileSink, WavSink
from audiovae.audio.values import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioPath,
    Clip,
    Waveform,
    message,
    unwritable,
)
from audiovae.errors import AudioWriteError, ShapeError
from audiovae.replacing import draft_of

AudioFormat: TypeAlias = Literal["wav", "flac", "ogg"]

_VORBIS_SURROUND = 6
_FLAC_ANY_RATE = 65_535  # Hz; above it, a frame header counts in tens
_SUFFIXES: dict[str, AudioFormat] = {
    ".wav": "wav", ".wave": "wav", ".rf64": "wav", ".flac": "flac", ".ogg": "ogg", ".oga": "ogg",
}  # fmt: skip
# libsndfile 1.2.2: highest sample rate and channel count that it writes and reads back.
_LIMITS: dict[AudioFormat, tuple[int, int]] = {
    "wav": (MAX_SAMPLE_RATE, MAX_CHANNELS),
    "flac": (655_350, 8),
    "ogg": (200_000, MAX_CHANNELS),
}


class AudioWriter:
    """A file that appears only once it is complete.

    Samples go to a hidden file in the same folder, which takes the final name when the
    `with` block ends without an error, and is removed otherwise.

    Args:
        path: Where the file shall appear; an existing one is replaced.
        sample_rate: Hz.
        num_channels: 1 to 32, as far as the format can hold them.
        bit_depth: Of the source; wav and flac get 24 bits if it is above 16, else 16.
        format: "wav", "flac" or "ogg" (Vorbis); None takes it from the suffix.

    Raises:
        AudioWriteError: If the format cannot hold the rate or the channels, or the folder
            cannot be written.
    """

    def __init__(
        self,
        path: AudioPath,
        *,
        sample_rate: int,
        num_channels: int,
        bit_depth: int = 16,
        format: AudioFormat | None = None,
    ) -> None:
        self.path = Path(path)
        self.format = format or format_of_name(self.path)
        self.num_samples = 0
        self._channels = num_channels
        _check_limits(self.path, self.format, sample_rate, num_channels)
        self._temporary = draft_of(self.path)
        bits = 24 if bit_depth > 16 else 16
        try:
            if self.format == "wav":
                self._sink: Sink = WavSink(self._temporary, sample_rate, num_channels, bits)
            else:
                self._sink = SoundfileSink(
                    self._temporary, self.format, sample_rate, num_channels, bits
                )
        except (OSError, soundfile.LibsndfileError) as error:
            self._temporary.unlink(missing_ok=True)
            raise unwritable(self.path, error) from error

    def __enter__(self) -> AudioWriter:
        """Return the writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the file its name, or remove it if the block failed."""
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, block: Waveform) -> None:
        """Append samples.

        Args:
            block: `[channel, sample]`, float32; integer formats clip it to full scale.

        Raises:
            ShapeError: If the channels differ.
            AudioWriteError: If a sample is NaN or infinite, or the disk is full.
        """
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise ShapeError(
                f"expected a block [{self._channels} channels, sample], got {list(block.shape)}; "
                "pass [channel, sample]"
            )
        if not np.isfinite(block).all():
            raise AudioWriteError(
                message(
                    self.path, "finite samples", "NaN or infinity", "check the model that made them"
                )
            )
        try:
            self._sink.write(block)
        except (OSError, soundfile.LibsndfileError) as error:
            raise unwritable(self.path, error) from error
        self.num_samples += block.shape[1]

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._sink.close()
            os.replace(self._temporary, self.path)
        except (OSError, soundfile.LibsndfileError) as error:
            self._temporary.unlink(missing_ok=True)
            raise unwritable(self.path, error) from error

    def discard(self) -> None:
        """Remove what was written; the final name is left as it was."""
        try:
            self._sink.close()
        except (OSError, soundfile.LibsndfileError):
            pass  # the file is removed anyway
        self._temporary.unlink(missing_ok=True)


def write_audio(
    path: AudioPath,
    clip: Clip | Waveform,
    sample_rate: int | None = None,
    *,
    bit_depth: int | None = None,
    format: AudioFormat | None = None,
) -> None:
    """Write a whole clip; the file appears only once it is complete.

    Args:
        path: Where; an existing file is replaced.
        clip: A clip, or a waveform `[channel, sample]`, float32.
        sample_rate: Hz; of a bare waveform.
        bit_depth: See `AudioWriter`; None takes the clip's.
        format: "wav", "flac" or "ogg"; None takes it from the suffix.
    """
    if not isinstance(clip, Clip):
        if sample_rate is None:
            raise ShapeError(
                "expected a Clip or a waveform with its sample_rate, got a waveform alone; "
                "pass sample_rate"
            )
        clip = Clip(clip, sample_rate)
    elif sample_rate not in (None, clip.sample_rate):
        raise ShapeError(
            f"expected the clip's own sample rate of {clip.sample_rate} Hz, got {sample_rate}; "
            "resample its waveform with audiovae.resample first"
        )
    with AudioWriter(
        path,
        sample_rate=clip.sample_rate,
        num_channels=clip.num_channels,
        bit_depth=clip.bit_depth if bit_depth is None else bit_depth,
        format=format,
    ) as writer:
        writer.write(clip.waveform)


def format_of_name(path: Path) -> AudioFormat:
    """The format that a file's name asks for.

    Raises:
        AudioWriteError: If it is none that is written here.
    """
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise AudioWriteError(
            message(path, "a name that ends in .wav, .flac or .ogg", path.suffix or "no suffix",
                    "end it so")
        )  # fmt: skip
    return found


def _check_limits(path: Path, format: AudioFormat, sample_rate: int, num_channels: int) -> None:
    max_rate, max_channels = _LIMITS[format]
    if format == "ogg" and num_channels == _VORBIS_SURROUND:
        raise AudioWriteError(
            message(
                path,
                "for ogg any number of channels but 6",
                "6, of which Vorbis makes the last a bass channel without highs",
                "write wav or flac instead",
            )
        )
    if format == "flac" and _FLAC_ANY_RATE < sample_rate <= max_rate and sample_rate % 10:
        raise AudioWriteError(
            message(
                path,
                f"for flac a sample rate up to {_FLAC_ANY_RATE} Hz or a multiple of 10 Hz",
                f"{sample_rate} Hz",
                "write wav instead",
            )
        )
    if not (MIN_SAMPLE_RATE <= sample_rate <= max_rate and 1 <= num_channels <= max_channels):
        raise AudioWriteError(
            message(
                path,
                f"for {format} 1 to {max_channels} channels at {MIN_SAMPLE_RATE} to {max_rate} Hz",
                f"{num_channels} at {sample_rate} Hz",
                "write wav instead" if format != "wav" else "resample or split the channels",
            )
        )
