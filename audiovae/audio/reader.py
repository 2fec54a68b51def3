"""Opening audio: which reader, every check, ranges of samples."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, Protocol

import numpy as np

from audiovae.audio import formats
from audiovae.audio.checks import check_complete, check_one_flac
from audiovae.audio.extent import HeaderFacts
from audiovae.audio.ogg import check_all_pages
from audiovae.audio.values import (
    MAX_CHANNELS,
    MAX_MAGNITUDE,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioInfo,
    AudioPath,
    Waveform,
    is_usable,
    message,
    no_samples,
)
from audiovae.audio.via_soundfile import SoundfileSource
from audiovae.errors import (
    AudioReadError,
    CorruptAudioError,
    EmptyAudioError,
    NonFiniteAudioError,
    NotAudioError,
    UnsupportedAudioError,
)

_MAX_SAMPLES_PER_BYTE = 65_536  # no codec packs more; a header that claims more lies


class _Source(Protocol):
    info: AudioInfo

    def read(self, start: int, stop: int) -> Waveform: ...
    def close(self) -> None: ...


def _open_binary(path: AudioPath) -> BinaryIO:
    """Open a regular file for reading, or say in one line why not."""
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            return open(path, "rb")
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        got, remedy = kind, "give the path of an audio file"
    except FileNotFoundError:
        got, remedy = "no such file", "check the path"
    except PermissionError:
        got, remedy = "no permission to read it", "allow reading with `chmod +r`"
    except (OSError, ValueError) as error:
        got, remedy = getattr(error, "strerror", None) or str(error), "check the path and the disk"
    raise AudioReadError(message(path, "a readable file", got, remedy))


def _open_source(path: AudioPath) -> _Source:
    """Recognise, check and open a file."""
    with _open_binary(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise EmptyAudioError(message(path, "audio", "0 bytes", "remove this empty file"))
        found = formats.sniff(file)
        if found is None and formats.is_compressed(path):
            advice = "make audio of it with `audiovae decode IN OUT.wav`"
            raise NotAudioError(message(path, "audio", "a compressed file", advice))
        if found is None:
            raise NotAudioError(
                message(
                    path,
                    "audio (wav, flac, ogg, opus, mp3, aiff, caf, m4a, ...)",
                    "content of another kind",
                    "remove it from the audio folder, or convert it with `ffmpeg -i IN OUT.wav`",
                )
            )
        container, start = found
        facts = check_complete(path, file, container, start)
    source = _pick_reader(path, container, facts)
    try:
        _check_info(path, source.info, size)
    except AudioReadError:
        source.close()
        raise
    return source


def _pick_reader(path: AudioPath, container: str, facts: HeaderFacts) -> _Source:
    if container in formats.SOUNDFILE_CONTAINERS:
        try:
            source = SoundfileSource(path, container, facts)
            if source.info.encoding != "MPEG_LAYER_III":  # in WAV: its length is wrong
                return source
            source.close()
        except CorruptAudioError:
            if container not in formats.OPEN_CONTAINERS:
                raise
    from audiovae.audio.via_pyav import PyAVSource

    return PyAVSource(path, container, facts.mpeg_samples)


def _check_info(path: AudioPath, info: AudioInfo, size: int) -> None:
    if not 1 <= info.num_channels <= MAX_CHANNELS:
        raise UnsupportedAudioError(
            message(
                path,
                f"1 to {MAX_CHANNELS} channels",
                f"{info.num_channels}",
                "mix it down, e.g. `ffmpeg -i IN -ac 2 OUT.wav`, or split its channels into files",
            )
        )
    if not MIN_SAMPLE_RATE <= info.sample_rate <= MAX_SAMPLE_RATE:
        raise UnsupportedAudioError(
            message(
                path,
                f"a sample rate of {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz",
                f"{info.sample_rate} Hz",
                "resample it, e.g. `ffmpeg -i IN -ar 44100 OUT.wav`",
            )
        )
    if info.num_samples < 1:
        raise no_samples(path)
    if info.num_samples > size * _MAX_SAMPLES_PER_BYTE:
        raise CorruptAudioError(
            message(
                path,
                "a believable length",
                f"{info.num_samples} samples in {size} bytes: the header lies",
                "restore the file from its source",
            )
        )


def probe_audio(path: AudioPath) -> AudioInfo:
    """Learn what a file holds without decoding it where that is possible.

    Args:
        path: A file of any name.

    Returns:
        Its facts; `num_samples` is what reading yields.

    Raises:
        AudioReadError: Or a subclass that says what is wrong, in one line.
    """
    source = _open_source(path)
    source.close()
    return source.info


def is_audio_by_content(path: AudioPath) -> bool:
    """Tell by its first bytes whether a file is audio of a kind that is read here.

    Args:
        path: Any path.

    Returns:
        False for everything else, also if it cannot be opened.
    """
    try:
        with _open_binary(path) as file:
            found = formats.sniff(file)
    except OSError:
        return False
    if found is None or found[0] not in formats.STREAM_CONTAINERS:
        return found is not None
    from audiovae.audio.ffmpeg import may_have_audio

    return may_have_audio(path, found[0])


class AudioReader:
    """An open audio file: any range of samples, in memory bounded by the range.

    `read(a, b)` always equals the slice of the whole decode, whatever was read before.
    One reader serves one thread.

    Args:
        path: A file of any name; its content decides how it is read.

    Attributes:
        info: What the file holds.

    Raises:
        AudioReadError: Or a subclass that says what is wrong, in one line.
    """

    def __init__(self, path: AudioPath) -> None:
        self.path = path
        self._source = _open_source(path)
        self.info = self._source.info
        try:
            self._check_body()
        except BaseException:
            self.close()
            raise
        self._may_be_infinite = self.info.encoding in ("FLOAT", "DOUBLE") or (
            self.info.reader == "pyav"
        )

    def _check_body(self) -> None:
        """Check what only a look at every byte can tell."""
        if self.info.container == "ogg":
            is_opus = self.info.encoding == "OPUS"
            check_all_pages(self.path, 48_000 if is_opus else self.info.sample_rate)
        elif self.info.container == "flac":
            check_one_flac(self.path)

    def __enter__(self) -> AudioReader:
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def read(self, start: int, stop: int) -> Waveform:
        """Decode a range, clipped to the file.

        Args:
            start: First sample, at the native rate.
            stop: One past the last.

        Returns:
            `[channel, sample]`, float32.

        Raises:
            NonFiniteAudioError: If the range holds NaN, infinity, or what no sound can be.
            AudioReadError: If it cannot be decoded.
        """
        start = max(0, int(start))
        stop = max(start, min(int(stop), self.info.num_samples))
        if start == stop:
            return np.zeros((self.info.num_channels, 0), np.float32)
        waveform = self._source.read(start, stop)
        if self._may_be_infinite and not is_usable(waveform):
            usable = (np.abs(waveform) <= MAX_MAGNITUDE).all(axis=0)  # not of NaN
            first = start + int(np.argmin(usable))
            raise NonFiniteAudioError(
                message(
                    self.path,
                    f"finite samples of at most {MAX_MAGNITUDE:g} times full scale",
                    f"NaN, infinity or more at second {first / self.info.sample_rate:.3f}",
                    "repair it in an audio editor, or export it again as 16- or 24-bit",
                )
            )
        return waveform
