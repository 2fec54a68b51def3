"""FFmpeg (PyAV) underneath `via_pyav`: opening, decoding, and placing frames in time.

FFmpeg is told which demuxer to use and may open plain files only, so no playlist,
script or address inside a file is ever followed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiovae.audio.formats import FFMPEG_FORMATS
from audiovae.audio.values import DAMAGE_REMEDY, AudioPath, Waveform, message
from audiovae.errors import (
    AudioReadError,
    CorruptAudioError,
    NotAudioError,
    UnsupportedAudioError,
)

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_MAX_DAMAGED_PACKETS = 1_000
_LISTED_PACKETS = frozenset({"mov", "matroska", "asf", "tta", "caf"})  # as FFmpeg names them
_CLOSE_TICKS = 2
_DTYPES: dict[str, type[np.generic]] = {
    "u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64,
    "flt": np.float32, "dbl": np.float64,
}  # fmt: skip
# What is subtracted from, then divided into, integer samples to make full scale 1.
_SCALES = {
    "u8": (128.0, 2.0**7),
    "s16": (0.0, 2.0**15),
    "s32": (0.0, 2.0**31),
    "s64": (0.0, 2.0**63),
}


@dataclass(frozen=True)
class Timeline:
    """Where each time stamp lies among the samples.

    Attributes:
        num_samples: Total length.
        first_pts: Time stamp of sample 0.
        ticks: Clock ticks per sample; 0 if the clock does not count samples.
        table_pts: Time stamp of each frame, rising; empty if `ticks`.
        table_start: First sample of each frame.
    """

    num_samples: int
    first_pts: int
    ticks: int
    table_pts: NDArray[np.int64]
    table_start: NDArray[np.int64]

    def position(self, pts: int) -> int | None:
        """Return the sample at a time stamp; None if no frame of the table is near."""
        if self.ticks:
            return round((pts - self.first_pts) / self.ticks)
        index = int(np.searchsorted(self.table_pts, pts))
        near = [i for i in (index - 1, index) if 0 <= i < len(self.table_pts)]
        best = min(near, key=lambda i: abs(int(self.table_pts[i]) - pts), default=None)
        if best is None or abs(int(self.table_pts[best]) - pts) > _CLOSE_TICKS:
            return None
        return int(self.table_start[best])

    def pts_at(self, sample: int) -> int:
        """Return the time stamp of the frame that holds a sample."""
        if self.ticks:
            return self.first_pts + sample * self.ticks
        index = int(np.searchsorted(self.table_start, sample, side="right")) - 1
        return int(self.table_pts[max(0, index)])


def open_container(path: AudioPath, container: str) -> InputContainer:
    """Open a file with the one demuxer that fits its content.

    Args:
        path: An existing regular file.
        container: As `formats.sniff` names it.

    Returns:
        The open container; the caller closes it.

    Raises:
        CorruptAudioError: If FFmpeg cannot make sense of it.
    """
    import av

    try:
        return av.open(
            "file:" + os.path.abspath(os.fspath(path)),
            format=FFMPEG_FORMATS[container],
            options={"protocol_whitelist": "file"},
            metadata_errors="ignore",
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise CorruptAudioError(
            message(
                path, f"a {container} file", f"a damaged one ({reason_of(error)})", DAMAGE_REMEDY
            )
        ) from error


def may_have_audio(path: AudioPath, container: str) -> bool:
    """Tell whether a container that may hold video alone can have an audio track.

    Args:
        path: An existing regular file.
        container: As `formats.sniff` names it.

    Returns:
        False if FFmpeg lists no audio stream. True if it cannot open a file, so that reading it
        says why: one that is cut short is not passed over as if it were silent.
    """
    try:
        with open_container(path, container) as file:
            return bool(file.streams.audio)
    except AudioReadError:
        return True


def audio_stream(path: AudioPath, file: InputContainer) -> AudioStream:
    """Return the first audio stream.

    Raises:
        NotAudioError: If there is none.
        UnsupportedAudioError: If nobody can decode it.
    """
    if not file.streams.audio:
        raise NotAudioError(
            message(path, "an audio track", "none", "leave this file out of the audio folder")
        )
    stream = file.streams.audio[0]
    if stream.codec_context is None:
        raise UnsupportedAudioError(
            message(
                path,
                "an encoding that FFmpeg knows",
                f"an unknown one in a {file.format.name} file",
                "convert it with the program that wrote it, to WAV or FLAC for instance",
            )
        )
    return stream


def decoded_frames(
    file: InputContainer, stream: AudioStream, damage: Callable[[str], CorruptAudioError]
) -> Iterator[Any]:
    """Yield the decoded frames from where the file stands.

    Of a bare stream, packets that do not decode are forgiven before the first frame (a decoder
    warming up, junk after a tag) and after the last (trailing tags); between two frames they are
    an error, as they are anywhere in a container that says where its packets lie.

    Args:
        file: The open container.
        stream: Its audio stream.
        damage: Makes the error from a reason.

    Yields:
        `av.AudioFrame`, none of them empty.

    Raises:
        CorruptAudioError: See above.
    """
    import av

    packets = file.demux(stream)
    is_listed = file.format.name in _LISTED_PACKETS
    reason: str | None = None
    started = False
    failures = 0
    while failures < _MAX_DAMAGED_PACKETS:
        try:
            frames = next(packets).decode()
        except (StopIteration, av.error.EOFError):
            if reason is not None and not started:
                break
            return
        except av.error.FFmpegError as error:
            if is_listed:
                raise damage(reason_of(error)) from None
            reason = reason or reason_of(error)
            failures += 1
            continue
        for frame in frames:
            if not isinstance(frame, av.AudioFrame) or not frame.samples:
                continue
            if reason is not None and started:
                raise damage(reason)
            reason, started = None, True
            yield frame
    raise damage(reason or "nothing decodes")


@lru_cache(maxsize=16)
def scan_timeline(path: str, container: str, _size: int, _mtime_ns: int) -> Timeline:
    """Decode a file once to learn where each of its frames lies.

    Args:
        path: Absolute.
        container: As `formats.sniff` names it.
        _size: Of the file; with the time of change it tells a rewritten file from the old one.
        _mtime_ns: Time of change.

    Returns:
        A timeline with a table.
    """
    pts: list[int] = []
    starts: list[int] = []
    at, rate = 0, 1

    def damage(reason: str) -> CorruptAudioError:
        return damage_at(path, at / rate, reason)

    with open_container(path, container) as file:
        for frame in decoded_frames(file, audio_stream(path, file), damage):
            rate = frame.sample_rate
            if frame.pts is not None and (not pts or frame.pts > pts[-1]):
                pts.append(int(frame.pts))
                starts.append(at)
            at += frame.samples
    first = pts[0] if pts else 0
    return Timeline(at, first, 0, np.asarray(pts, np.int64), np.asarray(starts, np.int64))


def damage_at(path: AudioPath, second: float, reason: str) -> CorruptAudioError:
    """Make the error for a body that does not decode."""
    return CorruptAudioError(
        message(
            path,
            "audio that decodes",
            f"damage near second {max(0.0, second):.1f} ({reason})",
            DAMAGE_REMEDY,
        )
    )


def to_waveform(frame: av.AudioFrame) -> Waveform:
    """Return a frame as `[channel, sample]` float32; integers at full scale become 1."""
    kind, channels = frame.format.name, frame.layout.nb_channels
    dtype = _DTYPES[kind.removesuffix("p")]
    # PyAV lists a ninth plane of eight, and more of more, that are no memory of the frame: its
    # own `to_ndarray` reads them and crashes.
    planes: Any = frame.planes[:channels]  # buffers, which PyAV's types do not say
    if frame.format.is_planar:
        samples = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in planes])
    else:
        samples = np.frombuffer(planes[0], dtype, frame.samples * channels)
        samples = samples.reshape(-1, channels).T
    if dtype == np.float32:
        return np.ascontiguousarray(samples)
    if dtype == np.float64:
        with np.errstate(over="ignore"):  # infinity is reported by the reader
            return samples.astype(np.float32)
    offset, scale = _SCALES[kind.removesuffix("p")]
    return ((samples.astype(np.float64) - offset) / scale).astype(np.float32)


def reason_of(error: BaseException) -> str:
    """Return what an FFmpeg error says, in its words unless they ask for patches."""
    import av

    if isinstance(error, av.error.PatchWelcomeError):
        return "data of an unknown kind"
    text = getattr(error, "strerror", None) or str(error)
    return str(text).strip() or type(error).__name__
