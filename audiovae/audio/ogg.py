"""Ogg pages: is the last one there, are all of them whole, and in which order are the channels?

libogg and FFmpeg drop a damaged page without a word and play on, so everything after it
would be out of place.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO, Protocol

from audiovae.audio.values import CUT_SHORT_REMEDY, AudioPath, message
from audiovae.errors import (
    AudioReadError,
    CorruptAudioError,
    TruncatedAudioError,
    UnsupportedAudioError,
)

_MAX_PAGE_BYTES = 27 + 255 + 255 * 255
_BLOCK_BYTES = 1 << 20
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FIRST, _LAST = 2, 4  # header flags
_WAVE_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
_OPUS_SURROUND = 1  # the mapping family whose channels are Vorbis's


def wave_order(num_channels: int) -> tuple[int, ...]:
    """Where each channel of a WAV stands in Vorbis, which has the centre second and the bass last.

    >>> wave_order(2), wave_order(3)
    ((0, 1), (0, 2, 1))
    """
    return _WAVE_ORDER.get(num_channels, tuple(range(num_channels)))


def stored_order(file: BinaryIO) -> tuple[int, ...]:
    """Where each channel of a WAV stands in an Ogg file, as libsndfile decodes it.

    Args:
        file: The open file, of Vorbis or Opus; its position is moved.
    """
    file.seek(0)
    head = file.read(_MAX_PAGE_BYTES)
    opus, vorbis = head.find(b"OpusHead"), head.find(b"\x01vorbis")
    if 0 <= opus and opus + 18 < len(head):
        is_surround = head[opus + 18] == _OPUS_SURROUND
        return wave_order(head[opus + 9]) if is_surround else tuple(range(head[opus + 9]))
    return wave_order(head[vorbis + 11]) if 0 <= vorbis and vorbis + 11 < len(head) else ()


def _checksum(page: bytes) -> int:
    """Compute Ogg's CRC-32: zlib's polynomial with the bits of each byte in the other order."""
    blank = page[:22] + bytes(4) + page[26:]
    mirrored = zlib.crc32(blank.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _pages(data: bytes, at: int) -> Iterator[bytes]:
    """Yield whole pages that follow each other without a gap."""
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + len(lacing) + sum(lacing)
        if len(lacing) < data[at + 26] or end > len(data):
            return
        yield data[at:end]
        at = end


def _header(page: bytes) -> tuple[int, int, int, int, int]:
    """Return flags, granule position, serial number, sequence number and checksum."""
    flags, granule, serial, sequence, checksum = struct.unpack("<BqIII", page[5:26])
    return flags, granule, serial, sequence, checksum


class _Rewritable(Protocol):
    """What `number_pages` needs of a file."""

    def seek(self, offset: int, /) -> int: ...

    def read(self, size: int, /) -> bytes: ...

    def write(self, data: bytes, /) -> int: ...


def number_pages(file: _Rewritable, serial: int) -> None:
    """Give all pages of a file one serial number."""
    at = 0
    while True:
        file.seek(at)
        pages = list(_pages(file.read(_BLOCK_BYTES), 0))
        if not pages:
            return
        file.seek(at)
        at += file.write(b"".join(_numbered(page, serial) for page in pages))


def _numbered(page: bytes, serial: int) -> bytes:
    changed = page[:14] + struct.pack("<I", serial) + page[18:]
    return changed[:22] + struct.pack("<I", _checksum(changed)) + changed[26:]


def check_last_page(path: AudioPath, file: BinaryIO) -> int:
    """Check that an Ogg file ends as one must.

    Args:
        path: For the error message.
        file: The open file.

    Returns:
        How many samples (granules) the last page adds; 0 if that cannot be told.

    Raises:
        TruncatedAudioError: If the last page is incomplete or does not end its stream.
        UnsupportedAudioError: If several recordings follow each other in the file.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = {_header(page)[2] for page in _first_pages(file.read(_MAX_PAGE_BYTES))}
    tail_at = max(0, size - 3 * _MAX_PAGE_BYTES)
    file.seek(tail_at)
    tail = file.read(3 * _MAX_PAGE_BYTES)
    start = tail.find(b"OggS")
    pages: list[bytes] = []
    while 0 <= start:
        run = list(_pages(tail, start))
        pages = run or pages
        end = start + sum(map(len, run))
        start = tail.find(b"OggS", max(end, start + 4))
        if not run and start < 0:
            pages = []  # the last thing that looks like a page is not whole
    if not pages:
        raise _cut_short(path, "half an Ogg page at the end")
    flags, _, serial, _, _ = _header(pages[-1])
    if first and serial not in first:
        raise UnsupportedAudioError(
            message(
                path,
                "one Ogg stream",
                "several recordings one after another",
                "join them with `ffmpeg -i IN OUT.flac`",
            )
        )
    if not flags & _LAST:
        raise _cut_short(path, "an Ogg file without its end-of-stream page")
    before = max((_header(page)[1] for page in pages[:-1]), default=0)
    return max(0, _header(pages[-1])[1] - before) if before > 0 else 0


def _first_pages(data: bytes) -> Iterator[bytes]:
    for page in _pages(data, 0):
        if not _header(page)[0] & _FIRST:
            return
        yield page


def _cut_short(path: AudioPath, got: str) -> TruncatedAudioError:
    return TruncatedAudioError(
        message(path, "a complete Ogg file", f"{got}: it is cut short", CUT_SHORT_REMEDY)
    )


def check_all_pages(path: AudioPath, sample_rate: int) -> None:
    """Verify the checksum and the order of every page.

    Args:
        path: An Ogg file that `check_last_page` has passed.
        sample_rate: Of its granule positions, Hz, to name the second.

    Raises:
        CorruptAudioError: If a page is damaged or missing.
    """
    status = os.stat(path)
    found = _first_fault(
        os.path.abspath(os.fspath(path)), status.st_size, status.st_mtime_ns, sample_rate
    )
    if found is not None:
        raise CorruptAudioError(
            message(
                path,
                "whole Ogg pages",
                found,
                "restore the file from its source, or re-encode what remains with ffmpeg",
            )
        )


@lru_cache(maxsize=64)
def _first_fault(path: str, _size: int, _mtime_ns: int, sample_rate: int) -> str | None:
    expected: dict[int, int] = {}
    second = 0.0
    data = b""
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                data += block
                used = 0
                for page in _pages(data, 0):
                    used += len(page)
                    _, granule, serial, sequence, checksum = _header(page)
                    if _checksum(page) != checksum:
                        return f"damage near second {second:.1f} (checksum)"
                    if sequence != expected.get(serial, sequence):
                        return f"a gap near second {second:.1f} (a page is missing)"
                    expected[serial] = sequence + 1 & 0xFFFFFFFF
                    second = max(second, granule / sample_rate)
                data = data[used:]
                if len(data) > 2 * _MAX_PAGE_BYTES:
                    return f"damage near second {second:.1f} (no page follows)"
    except OSError as error:
        raise AudioReadError(
            message(path, "a readable file", error.strerror or str(error), "check the disk")
        ) from error
    return f"damage near second {second:.1f} (no page follows)" if b"OggS" in data else None
