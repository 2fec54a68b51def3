"""Reading through FFmpeg (PyAV): MP3, AAC in any box, WMA, Matroska, AC-3, WavPack, ...

Every decoded frame gets a place on one line of samples, from its time stamp where the
file's clock counts samples exactly, else from a table made by decoding the file once.
Codecs that carry state for ever (noise substitution in AAC, dither in AC-3 and MP2, Opus)
are decoded in fixed segments, each from a fresh decoder: a sample never depends on what was
read before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from audiovae.audio.ffmpeg import (
    Timeline,
    audio_stream,
    damage_at,
    decoded_frames,
    open_container,
    scan_timeline,
    to_waveform,
)
from audiovae.audio.values import MAX_CHANNELS, AudioInfo, AudioPath, Waveform, message, no_samples
from audiovae.errors import (
    CorruptAudioError,
    TruncatedAudioError,
    UnsupportedAudioError,
)

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

SEGMENT_SECONDS = 60
PREROLL_SECONDS = 1.0
_SKIP_AHEAD_SECONDS = 5.0
_TAIL_SECONDS = 2.0
_LOSSLESS = ("flac", "alac", "wavpack", "tta", "ape", "tak", "pcm")
# Decoders whose output forgets its past within a few frames, bit for bit.
_FORGETFUL = ("mp3", *_LOSSLESS)
# FFmpeg's time stamps in Ogg wander between pages and differ after a seek; those of AVI and VOC
# are counted from bytes.
_NO_SEEKING = frozenset({"ogg", "avi", "voc"})
_EXACT_CLOCKS = frozenset({"mp4", "mp3", "mp2", "aac", "wavpack", "tta"})
_MAX_MPEG_PADDING = 3 * 4_096  # samples: what an encoder puts before and behind the sound
# Lossless files that state their length and begin at 0.
_COUNTED = frozenset({"wavpack", "tta"})
_DEPTHS = {"u8": 8, "s16": 16, "s32": 32, "s64": 64, "flt": 32, "dbl": 64}


class PyAVSource:
    """One open file, read by FFmpeg.

    Args:
        path: An existing regular file.
        container: As `formats.sniff` names it.
        mpeg_samples: As in `HeaderFacts`.

    Raises:
        AudioReadError: If it has no audio track or cannot be decoded.
    """

    def __init__(self, path: AudioPath, container: str, mpeg_samples: int | None = None) -> None:
        self._path, self._container = path, container
        self._file: InputContainer | None = None
        self._rate = self._next = self._begin = 0
        self._held: tuple[int, Waveform] = (0, np.zeros((0, 0), np.float32))
        self._held_known = False
        self._frames: Iterator[Any] = iter(())
        self._open()
        try:
            frame = self._first_frame()
            codec = self._stream.codec_context.name
            self._rate = int(frame.sample_rate)
            self._channels = int(frame.layout.nb_channels)
            self._forgetful = codec.startswith(_FORGETFUL)
            whole = self._forgetful or container in _NO_SEEKING
            self._segment_samples = 0 if whole else SEGMENT_SECONDS * self._rate
            lossless = codec.startswith(_LOSSLESS)
            self._timeline = self._make_timeline(frame, mpeg_samples)
            self.info = AudioInfo(
                sample_rate=self._rate,
                num_channels=self._channels,
                num_samples=self._timeline.num_samples,
                container="ogg" if container in ("opus", "vorbis") else container,
                encoding=codec.removesuffix("float").upper(),
                bit_depth=_DEPTHS[frame.format.name.removesuffix("p")] if lossless else 16,
                reader="pyav",
            )
            self._restart(0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self.close()
        self._file = open_container(self._path, self._container)
        self._stream = audio_stream(self._path, self._file)
        if self._container in _COUNTED:
            self._stream.codec_context.options = {"err_detect": "crccheck+explode"}

    def _first_frame(self) -> av.AudioFrame:
        frame: av.AudioFrame
        for frame in self._decoded():
            if not 1 <= frame.layout.nb_channels <= MAX_CHANNELS or frame.sample_rate < 1:
                raise UnsupportedAudioError(
                    message(
                        self._path,
                        f"1 to {MAX_CHANNELS} channels",
                        f"{frame.layout.nb_channels} channels at {frame.sample_rate} Hz",
                        "convert it with `ffmpeg -i IN -ac 2 OUT.wav`",
                    )
                )
            return frame
        raise no_samples(self._path)

    def _decoded(self) -> Iterator[Any]:
        assert self._file is not None
        return decoded_frames(self._file, self._stream, self._corrupt)

    def _corrupt(self, reason: str) -> CorruptAudioError:
        return damage_at(self._path, self._next / (self._rate or 1), reason)

    def _make_timeline(self, frame: av.AudioFrame, mpeg_samples: int | None) -> Timeline:
        base, first = self._stream.time_base, frame.pts
        ticks = 0
        if base is not None and first is not None and self._container in _EXACT_CLOCKS:
            per_sample = 1 / (base * self._rate)
            ticks = int(per_sample) if per_sample.denominator == 1 else 0
        none = np.zeros(0, np.int64)
        if ticks and first is not None:
            length = self._stream.duration
            end: int | None = int(length or 0) // ticks
            if mpeg_samples is None:
                end = self._end_by_tail(first, ticks)
            elif not end or not mpeg_samples or abs(end - mpeg_samples) > _MAX_MPEG_PADDING:
                end = None  # FFmpeg did not find the count, and guesses by the bit rate
            if self._container in _COUNTED and (first or (length and length // ticks != end)):
                raise self._corrupt("samples missing")
            if end is not None:
                return Timeline(end, first, ticks, none, none)
        stat = os.stat(self._path)
        return scan_timeline(
            os.path.abspath(os.fspath(self._path)), self._container, stat.st_size, stat.st_mtime_ns
        )

    def _end_by_tail(self, first: int, ticks: int) -> int | None:
        """Decode the last seconds and see where they end; None if seeking there fails."""
        import av

        assert self._file is not None
        target = int(self._stream.duration or 0) - int(_TAIL_SECONDS * self._rate) * ticks
        try:
            if target > 0:
                self._file.seek(first + target, stream=self._stream)
            else:
                self._open()
            end = None
            for frame in self._decoded():
                if frame.pts is None:
                    return None
                end = round((frame.pts - first) / ticks) + frame.samples
        except (av.error.FFmpegError, CorruptAudioError):
            return None
        return end

    def read(self, start: int, stop: int) -> Waveform:
        """Decode an exact range.

        Args:
            start: First sample, at least 0.
            stop: One past the last, at most `info.num_samples`.

        Returns:
            `[channel, sample]`, float32.
        """
        out = np.zeros((self._channels, stop - start), np.float32)
        at = start
        while at < stop:
            end = stop
            if self._segment_samples:
                segment = at // self._segment_samples
                end = min(stop, (segment + 1) * self._segment_samples)
                begin = segment * self._segment_samples
                if not begin <= self._next <= at or self._begin != begin:
                    self._restart(begin)
            elif self._next > at or (
                at > self._next + _SKIP_AHEAD_SECONDS * self._rate
                and self._container not in _NO_SEEKING
            ):
                self._restart(at)
            self._fill(out[:, at - start : end - start], at, end)
            at = end
        return out

    def _fill(self, out: Waveform, start: int, stop: int) -> None:
        """Copy samples [start, stop) as their frames come by."""
        at = start
        while at < stop:
            frame_at, samples = self._held
            end = frame_at + samples.shape[1]
            if end > at:
                first, last = max(frame_at, at), min(end, stop)
                if first < last:
                    out[:, first - start : last - start] = samples[
                        :, first - frame_at : last - frame_at
                    ]
                at = max(at, min(last, stop)) if first < stop else stop
                self._next = at
            if at < stop and not self._advance():
                raise TruncatedAudioError(
                    message(
                        self._path,
                        f"{self._timeline.num_samples} samples",
                        f"{at}: the file is cut short",
                        "copy the file again from its source",
                    )
                )

    def _advance(self) -> bool:
        """Decode the next frame into `_held`; False at the end."""
        frame = next(self._frames, None)
        if frame is None:
            return False
        expected = self._held[0] + self._held[1].shape[1] if self._held_known else None
        place = self._timeline.position(frame.pts) if frame.pts is not None else None
        if expected is not None and (place is None or not self._timeline.ticks):
            place = expected
        if place is None:
            raise self._corrupt("a frame without a time stamp")
        if expected is not None and place != expected and self._container != "mp4":
            raise self._corrupt(f"{place - expected} samples missing")
        if frame.sample_rate != self._rate or frame.layout.nb_channels != self._channels:
            raise self._corrupt(
                f"the sound changes to {frame.layout.nb_channels} channels "
                f"at {frame.sample_rate} Hz"
            )
        self._held = (place, to_waveform(frame))
        self._held_known = True
        return True

    def _restart(self, begin: int) -> None:
        """Stand just before sample `begin`, the decoder warmed up on what precedes it."""
        import av

        preroll = int(PREROLL_SECONDS * self._rate)
        attempts = (preroll, 10 * preroll, begin)
        for back in (begin,) if self._container in _NO_SEEKING else attempts:
            target = max(0, begin - back)
            if target == 0 or not self._forgetful or self._file is None:
                self._open()
            self._held, self._held_known = (0, np.zeros((self._channels, 0), np.float32)), False
            self._begin = self._next = begin
            assert self._file is not None
            try:
                if target:
                    self._file.seek(self._timeline.pts_at(target), stream=self._stream)
                self._frames = self._decoded()
                if not self._advance():
                    continue
            except (av.error.FFmpegError, CorruptAudioError):
                if target == 0:
                    raise
                continue
            if self._held[0] <= max(0, begin - back // 4) or target == 0:
                return
