"""A file beside what its header says of its size: what the checks of every container share."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from audiovae.audio.values import CUT_SHORT_REMEDY, AudioPath, message
from audiovae.errors import TruncatedAudioError, UnsupportedAudioError

_APE_HEADER = struct.Struct("<8sII16x")  # magic, version, bytes that follow
_ID3V1_BYTES = 128


@dataclass(frozen=True)
class HeaderFacts:
    """What the check learnt that a reader needs.

    Attributes:
        start: Where the container begins, after ID3 tags; only set if that is not 0.
        stop: Where the sound ends, if more follows that libsndfile would play; None otherwise.
        zero_size_at: Offset of the size field of a streamed WAV that says 0; None otherwise.
        mpeg_samples: Of an MPEG stream whose Xing header has the file's bytes right, what it
            counts: encoder delay and padding included, 0 if that cannot be; None otherwise.
        last_page_granules: Length of the last Ogg page; 0 if unknown.
        channel_order: Where each channel, in the order of a WAV, stands in the file; empty if
            there.
    """

    start: int = 0
    stop: int | None = None
    zero_size_at: int | None = None
    mpeg_samples: int | None = None
    last_page_granules: int = 0
    channel_order: tuple[int, ...] = ()


@dataclass
class Extent:
    """An open file whose container begins at `start` and which ends at `size`."""

    path: AudioPath
    file: BinaryIO
    start: int
    size: int

    def at(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from an offset on."""
        if not 0 <= offset <= self.size:
            return b""  # a lying size led outside the file
        self.file.seek(offset)
        return self.file.read(count)

    def need(self, end: int, what: str) -> None:
        """Refuse a file that ends before `end`."""
        if end > self.size:
            raise self.cut_short(
                f"{end} bytes ({what} says so)", f"{self.size} bytes: the file is cut short"
            )

    def alone(self, end: int) -> None:
        """Refuse a second file of this kind behind the first, which readers pass over."""
        end = self._behind_tags(end)
        # One byte further, as an odd end may be padded.
        found = self.at(end, 5).find(self.at(self.start, 4))
        if found >= 0 and end < self.size:
            raise joined(self.path, end + found)

    def _behind_tags(self, at: int) -> int:
        head = self.at(at, _APE_HEADER.size)
        if head.startswith(b"APETAGEX") and len(head) == _APE_HEADER.size:
            at += _APE_HEADER.size + _APE_HEADER.unpack(head)[2]
        return at + _ID3V1_BYTES if self.at(at, 3) == b"TAG" else at

    def cut_short(self, expected: str, got: str) -> TruncatedAudioError:
        """Make the error for a file whose end is missing."""
        return TruncatedAudioError(message(self.path, expected, got, CUT_SHORT_REMEDY))


def joined(path: AudioPath, second_at: int) -> UnsupportedAudioError:
    """Make the error for a file in which a second one begins."""
    return UnsupportedAudioError(
        message(
            path,
            "one recording",
            f"another behind it, from byte {second_at} on",
            f"split them with `head -c {second_at} IN > FIRST` and "
            f"`tail -c +{second_at + 1} IN > SECOND`",
        )
    )
