"""Where samples go: WAV (RF64 when it grows beyond 4 GiB), FLAC and Vorbis."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiovae.audio.ogg import number_pages, wave_order
from audiovae.audio.values import Waveform

WAV_MAX_BYTES = 2**32 - 1
_PIECE = 65_536
_VORBIS_PIECE = 4_096  # one sf.write of 60 s of Vorbis crashes
# Speakers of a number of channels in a WAV header, as of FLAC (RFC 9639, 9.1.3); others have none.
_SPEAKERS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
_VORBIS_SERIAL = 1  # libsndfile draws one, and no two files would be the same
_VORBIS_COMPRESSION = 0.3  # quality 7, about 224 kbps at 44.1 kHz stereo


class Sink(Protocol):
    """An open output file."""

    def write(self, block: Waveform) -> None:
        """Append `[channel, sample]`."""

    def close(self) -> None:
        """Finish the file."""


def to_integers(block: Waveform, bits: int) -> NDArray[np.int32]:
    """Scale so that what was read from integers comes back as the same integers.

    libsndfile scales by 2^(bits-1) - 1 on writing and 2^(bits-1) on reading, which does not.

    Args:
        block: `[channel, sample]`, float32; clipped to full scale.
        bits: 16 or 24.

    Returns:
        `[sample, channel]`, int32.
    """
    full = 2.0 ** (bits - 1)
    scaled = np.rint(block.T.astype(np.float64) * full)
    return np.clip(scaled, -full, full - 1).astype(np.int32)  # [sample, channel]


class _Draft:
    """A file for libsndfile, which does not say so when its last bytes could not be written."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w+b", buffering=0)
        self._problem: OSError | None = None
        self.seek, self.tell, self.read = self._file.seek, self._file.tell, self._file.read
        self.close = self._file.close

    def write(self, data: bytes) -> int:
        """Write all of it; what the system refuses is kept for `check`."""
        left = memoryview(data)
        try:
            while len(left):
                left = left[self._file.write(left) :]
        except OSError as error:
            self._problem = self._problem or error
        return len(data) - len(left)

    def check(self) -> None:
        """Raise what the system said."""
        if self._problem is not None:
            raise self._problem


class SoundfileSink:
    """FLAC and Vorbis, by libsndfile, in pieces."""

    def __init__(self, path: Path, format: str, rate: int, channels: int, bits: int) -> None:
        self._bits = 0 if format == "ogg" else bits
        self._order = np.argsort(wave_order(channels))  # Vorbis's own
        options = {"compression_level": _VORBIS_COMPRESSION} if format == "ogg" else {}
        self._draft = _Draft(path)
        self._file = soundfile.SoundFile(
            self._draft,
            "w",
            rate,
            channels,
            "VORBIS" if format == "ogg" else f"PCM_{bits}",
            format=format.upper(),
            **options,
        )

    def write(self, block: Waveform) -> None:
        """Append `[channel, sample]`."""
        size = _PIECE if self._bits else _VORBIS_PIECE
        for at in range(0, block.shape[1], size):
            piece = block[:, at : at + size]
            if self._bits:
                samples = to_integers(piece, self._bits) << (32 - self._bits)
            else:
                samples = np.ascontiguousarray(piece[self._order].T, np.float32)
            try:
                self._file.write(samples)
            finally:
                self._draft.check()

    def close(self) -> None:
        """Finish the file."""
        if self._file.closed:
            return
        try:
            self._file.close()
            if not self._bits:
                number_pages(self._draft, _VORBIS_SERIAL)
            self._draft.check()
        finally:
            self._draft.close()


class WavSink:
    """WAV, with room reserved to become RF64 when it passes 4 GiB (EBU Tech 3306)."""

    def __init__(self, path: Path, rate: int, channels: int, bits: int) -> None:
        self._bits, self._channels, self._rate = bits, channels, rate
        self._file: BinaryIO = open(path, "wb")
        self._data_bytes = 0
        self._file.write(self._header())

    def _header(self) -> bytes:
        align = self._channels * self._bits // 8
        basic = (self._channels, self._rate, min(self._rate * align, 2**32 - 1), align, self._bits)
        if self._channels > 2:
            guid = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
            mask = _SPEAKERS.get(self._channels, 0)
            fmt = struct.pack("<HHIIHHHHI", 0xFFFE, *basic, 22, self._bits, mask) + guid
        else:
            fmt = struct.pack("<HHIIHH", 1, *basic)
        rest = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data"
        total = 4 + 36 + len(rest) + 4 + self._data_bytes + (self._data_bytes & 1)
        if total + 8 <= WAV_MAX_BYTES:
            head = b"RIFF" + struct.pack("<I", total) + b"WAVE" + b"JUNK" + struct.pack("<I", 28)
            return head + bytes(28) + rest + struct.pack("<I", self._data_bytes)
        sizes = struct.pack("<QQQI", total, self._data_bytes, self._data_bytes // align, 0)
        head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", 28) + sizes
        return head + rest + b"\xff\xff\xff\xff"

    def write(self, block: Waveform) -> None:
        """Append `[channel, sample]`."""
        for at in range(0, block.shape[1], _PIECE):
            integers = to_integers(block[:, at : at + _PIECE], self._bits)
            if self._bits == 16:
                data = integers.astype("<i2").tobytes()
            else:
                words = np.ascontiguousarray(integers, "<i4").view(np.uint8)
                data = words.reshape(-1, 4)[:, :3].tobytes()
            self._file.write(data)
            self._data_bytes += len(data)

    def close(self) -> None:
        """Finish the file."""
        if self._file.closed:
            return
        try:
            if self._data_bytes & 1:
                self._file.write(b"\0")
            self._file.seek(0)
            self._file.write(self._header())
        finally:
            self._file.close()
