"""Reading through libsndfile: PCM of every kind, FLAC, Vorbis and Opus.

Measured with libsndfile 1.2.2: MP3 without a Xing header is given half its length and
seeking in MPEG-2 layer 3 lands wrongly, so MP3 is left to PyAV. A second seek in Vorbis,
or one into its last page, lands wrongly; Opus differs by one rounding after a seek. Both are
decoded in fixed segments, each from its own fresh start outside the last page, so that a
sample never depends on what was read before.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np
import soundfile

from audiovae.audio.extent import HeaderFacts
from audiovae.audio.values import AudioInfo, AudioPath, Waveform, message, native_path
from audiovae.errors import AudioReadError, CorruptAudioError, TruncatedAudioError

PIECE_SAMPLES = 16_384
SEGMENTED = ("opus", "vorbis")
SEGMENT_SECONDS = 60
PREROLL_SECONDS = 1
_OPUS_RATE = 48_000  # of the positions in its pages, whatever the file's own rate
_UNKNOWN_LENGTH = 1 << 40
_BIT_DEPTHS = {
    "PCM_S8": 8, "PCM_U8": 8, "DPCM_8": 8, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64,
    "ALAC_20": 24, "ALAC_24": 24, "ALAC_32": 32, "DWVW_24": 24,
}  # fmt: skip


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that does not seek after every read, as the base class does.

    That seek resets lossy decoders: sequential reads then differ from one whole read.
    """

    def seekable(self) -> bool:
        return False


class _ViewedFile(io.RawIOBase):
    """A file from an offset on, to another, with four bytes that read as 0xFF.

    libsndfile cannot seek in FLAC behind an ID3 tag, nor read a streamed WAV of size 0, and plays
    whatever follows the sound in a W64.
    """

    def __init__(self, file: BinaryIO, facts: HeaderFacts) -> None:
        self._file, self._start, self._stop = file, facts.start, facts.stop
        patch_at = facts.zero_size_at
        self._patch = range(0) if patch_at is None else range(patch_at, patch_at + 4)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET:
            offset += self._start
        elif whence == os.SEEK_END and self._stop is not None:
            offset, whence = offset + self._stop, os.SEEK_SET
        return self._file.seek(offset, whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        at = self._file.tell()
        count = len(buffer) if self._stop is None else min(len(buffer), max(0, self._stop - at))
        data = bytearray(self._file.read(count))
        for place in self._patch:
            if at <= place < at + len(data):
                data[place - at] = 0xFF
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class SoundfileSource:
    """One open file, read by libsndfile.

    Args:
        path: An existing regular file.
        container: As `formats.sniff` names it.
        facts: From `checks.check_complete`.

    Raises:
        AudioReadError: If libsndfile cannot open it, or the body lacks what the header says.
    """

    def __init__(self, path: AudioPath, container: str, facts: HeaderFacts) -> None:
        self._path = path
        self._facts = facts
        self._view: _ViewedFile | None = None
        self._file = self._open()
        self._next = 0
        self._segment = 0
        self._order: list[int] | slice = slice(None)
        try:
            file = self._file
            segmented = container in SEGMENTED
            self._segment_samples = SEGMENT_SECONDS * file.samplerate if segmented else 0
            self._can_seek = bool(soundfile.SoundFile.seekable(file))
            order = self._facts.channel_order
            self._order = list(order) if len(order) == file.channels else slice(None)
            self.info = AudioInfo(
                sample_rate=file.samplerate,
                num_channels=file.channels,
                num_samples=self._length(container),
                container="ogg" if segmented else container,
                encoding=file.subtype,
                bit_depth=_BIT_DEPTHS.get(file.subtype, 16),
                reader="soundfile",
            )
        except BaseException:
            self.close()
            raise

    def _open(self) -> _ForwardFile:
        path = native_path(self._path)
        self.close()
        try:
            facts = self._facts
            if facts.zero_size_at is None and facts.stop is None and not facts.start:
                return _ForwardFile(path)
            self._view = _ViewedFile(open(path, "rb"), facts)
            return _ForwardFile(self._view)
        except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
            raise CorruptAudioError(
                message(
                    self._path,
                    "a readable audio file",
                    f"a damaged or unknown one ({_reason(error)})",
                    "try to convert it with `ffmpeg -i IN OUT.wav`, or remove it",
                )
            ) from error

    def close(self) -> None:
        """Close the file."""
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()
        if self._view is not None:
            self._view.close()
            self._view = None

    def _length(self, container: str) -> int:
        """Return the exact length, having checked it where the header alone may lie."""
        frames = int(self._file.frames)
        if container != "flac":
            return frames
        if frames > _UNKNOWN_LENGTH or frames == 0:
            count = 0
            while got := self._pieces(count, PIECE_SAMPLES).shape[1]:
                count += got
            self._file = self._open()
            self._next = 0
            return count
        try:
            self._file.seek(frames - 1)
            complete = len(self._file.read(1, dtype="float32")) == 1
            self._file.seek(0)
        except soundfile.LibsndfileError:
            complete = False
        if not complete:
            raise self._truncated(frames, None)
        return frames

    def _truncated(self, expected: int, got: int | None) -> AudioReadError:
        rate = self._file.samplerate
        return TruncatedAudioError(
            message(
                self._path,
                f"{expected} samples ({expected / rate:.3f} s)",
                "fewer: the end is missing or damaged"
                if got is None
                else f"{got}: the file is cut short",
                "copy the file again from its source, or repair it with `ffmpeg -i IN OUT`",
            )
        )

    def read(self, start: int, stop: int) -> Waveform:
        """Decode an exact range.

        Args:
            start: First sample, at least 0.
            stop: One past the last, at most `info.num_samples`.

        Returns:
            `[channel, sample]`, float32.
        """
        out = np.empty((self.info.num_channels, stop - start), np.float32)
        at = start
        while at < stop:
            end = stop
            if self._segment_samples:
                segment = at // self._segment_samples
                end = min(stop, (segment + 1) * self._segment_samples)
                self._enter(segment, at)
            elif at != self._next:
                self._go_to(at)
            while at < end:
                piece = self._pieces(at, min(PIECE_SAMPLES, end - at))
                if not piece.shape[1]:
                    raise self._truncated(self.info.num_samples, at)
                out[:, at - start : at - start + piece.shape[1]] = piece
                at += piece.shape[1]
        return out[self._order]

    def _pieces(self, at: int, count: int) -> Waveform:
        """Read at most `count` samples from where the decoder stands."""
        try:
            piece: Waveform = self._file.read(count, dtype="float32", always_2d=True).T
        except soundfile.LibsndfileError as error:
            self._next = -1
            raise CorruptAudioError(
                message(
                    self._path,
                    "audio that decodes",
                    f"damage at second {at / self._file.samplerate:.1f} ({_reason(error)})",
                    "restore the file from its source, or re-encode what remains with ffmpeg",
                )
            ) from error
        self._next = at + piece.shape[1]
        return piece

    def _enter(self, segment: int, at: int) -> None:
        """Stand at `at`, decoding from the fixed start of its segment."""
        if segment != self._segment or self._next > at or self._next < 0:
            begin = segment * self._segment_samples
            self._file = self._open()
            self._segment = segment
            rate = self._file.samplerate
            clock = _OPUS_RATE if self.info.encoding == "OPUS" else rate
            last_page = self.info.num_samples - self._facts.last_page_granules * rate // clock
            safe = min(begin, last_page) if self._facts.last_page_granules else 0
            self._next = max(0, safe - PREROLL_SECONDS * rate)
            if self._next:
                self._file.seek(self._next)
        self._skip(at)

    def _go_to(self, at: int) -> None:
        try:
            if self._can_seek:
                self._file.seek(at)
                self._next = at
                return
            if self._next > at or self._next < 0:
                self._file = self._open()
                self._next = 0
        except soundfile.LibsndfileError as error:
            self._next = -1
            raise CorruptAudioError(
                message(
                    self._path,
                    f"audio at second {at / self._file.samplerate:.1f}",
                    f"damage there ({_reason(error)})",
                    "restore the file from its source, or re-encode what remains with ffmpeg",
                )
            ) from error
        self._skip(at)

    def _skip(self, at: int) -> None:
        while self._next < at:
            if not self._pieces(self._next, min(PIECE_SAMPLES, at - self._next)).shape[1]:
                raise self._truncated(self.info.num_samples, self._next)


def _reason(error: BaseException) -> str:
    text = str(error).rstrip(". ")
    return text.rsplit(": ", 1)[-1] or type(error).__name__
