"""The container of a compressed file: header, table of chunks, payloads.

    "AVAE" | version | header length, header, CRC-32 | table, CRC-32 | payload | payload | ...

The table has one entry for each stored channel of each chunk, chunk by chunk: the payload's
length, the CRC-32 of its bytes and the CRC-32 of its symbols. So one seek finds any chunk, and
any flipped bit is found before its sound is heard. `docs/format.md` has every byte. Here is the
reader; `writer.py` is its mirror.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from audiovae.checkpoint import Model
from audiovae.codec.header import GRID, AvaeHeader
from audiovae.codec.integers import ByteReader
from audiovae.codec.types import CodedChunk, DamagedChunkError
from audiovae.errors import BitstreamError, ModelMismatchError

MAGIC = b"AVAE"
VERSION = 2
MAX_HEADER_BYTES = 1 << 17
MAX_PAYLOAD_BYTES = 1 << 24
CRC_BYTES = 4
_MIN_ENTRY_BYTES = 1 + 2 * CRC_BYTES
_MAX_ENTRY_BYTES = 4 + 2 * CRC_BYTES
_COPY_AGAIN = "copy the file again from its source"


@dataclass(frozen=True)
class ChunkEntry:
    """Where a payload is, and what its checksums are."""

    offset: int
    num_bytes: int
    bytes_crc: int
    symbols_crc: int


class AvaeReader:
    """Read a compressed file: the header and table at once, then any chunk.

    Args:
        source: A path, the bytes of a file, or a seekable binary stream that is left open.
        salvage: Accept a file that is cut short or has something behind its end; the chunks
            that are missing raise `DamagedChunkError` when they are read.

    Attributes:
        version: Of its layout, 1 or 2.
        header: Facts of the file.
        entries: Chunk by chunk, within a chunk by stored channel.
        num_bytes: Size of the file.

    Raises:
        BitstreamError: If it is not a compressed file, of a newer version, damaged in its header
            or table, cut short, or longer than it says.
    """

    def __init__(self, source: str | Path | bytes | IO[bytes], salvage: bool = False) -> None:
        self._owned = isinstance(source, (str, Path, bytes))
        self._file = _open(source)
        try:
            self.num_bytes = self._file.seek(0, os.SEEK_END)
            self.version, self.header, after_header, crc = _read_header(self._file, self.num_bytes)
            self.entries, end = _read_table(
                self._file, self.header, after_header, self.num_bytes, crc
            )
            if self.num_bytes != end and not salvage:
                raise _wrong_size(self.num_bytes, end)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> AvaeReader:
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file if it was opened here."""
        self.close()

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self._owned:
            self._file.close()

    @property
    def kbps(self) -> float:
        """True rate: all bytes of the file, all channels."""
        return self.num_bytes * 8 / 1000 / self.header.duration_seconds

    @property
    def container_bytes(self) -> int:
        """Bytes of everything but the payloads."""
        return self.num_bytes - sum(entry.num_bytes for entry in self.entries)

    def read_chunk(self, channel: int, index: int) -> CodedChunk:
        """Read one chunk; a channel that is a copy gives its source's.

        Raises:
            DamagedChunkError: If its bytes are missing or not those that were written.
        """
        channels = self.header.coded_channels
        stored = self.header.source_of(channel)
        entry = self.entries[index * len(channels) + channels.index(stored)]
        self._file.seek(entry.offset)
        payload = self._file.read(entry.num_bytes)
        if len(payload) != entry.num_bytes:
            raise self._damage(
                stored, index, f"expected {entry.num_bytes} bytes, got {len(payload)}"
            )
        if zlib.crc32(payload) != entry.bytes_crc:
            raise self._damage(
                stored, index, "expected the bytes that were written, got damaged ones"
            )
        return CodedChunk(
            payload=payload,
            symbols_crc=entry.symbols_crc,
            num_frames=self.header.chunk_frames(index),
            channel=stored,
            index=index,
        )

    def require_model(self, model: Model | None) -> None:
        """Refuse a model that did not write this file.

        Raises:
            ModelMismatchError: If it is another one, or None.
        """
        header = self.header
        wanted = f"model {header.model_name or 'without a name'} (id {header.model_id})"
        if model is None:
            raise ModelMismatchError(
                f"expected {wanted} to decode this file with, got none; "
                "give its model file with --checkpoint"
            )
        if model.id != header.model_id:
            namesake = ", another of that name" if model.name == header.model_name else ""
            raise ModelMismatchError(
                f"expected {wanted} to decode this file with, got {model.name} (id {model.id})"
                f"{namesake}; give the model file that wrote it with --checkpoint, or encode the "
                "audio again"
            )
        require_grid(model)

    def _damage(self, channel: int, index: int, reason: str) -> DamagedChunkError:
        start, stop = self.header.chunk_seconds(index)
        return DamagedChunkError(
            f"{reason}; {_COPY_AGAIN}, or decode the rest with --salvage",
            channel,
            index,
            start,
            stop,
        )


def require_grid(model: Model) -> None:
    """Refuse a model whose spectrogram is not the one by which files are cut into chunks.

    Raises:
        ModelMismatchError: If rate, hop or window differ.
    """
    config = model.config.spectrogram
    grid = (config.sample_rate, config.hop_samples, config.window_samples)
    expected = (GRID.sample_rate, GRID.hop_samples, GRID.window_samples)
    if grid != expected:
        raise ModelMismatchError(
            f"expected a model with sample rate, hop and window {expected}, by which files are "
            f"cut into chunks, got {model.name} with {grid}; choose another model"
        )


def _open(source: str | Path | bytes | IO[bytes]) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, (str, Path)):
        return source
    try:
        mode = Path(source).stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return Path(source).open("rb")
        problem = "a pipe or device"
    except OSError as error:
        problem = error.strerror or str(error)
    raise BitstreamError(f"{source}: expected a compressed file, got {problem}; check the path")


def _read_header(file: IO[bytes], num_bytes: int) -> tuple[int, AvaeHeader, int, int]:
    """The version, the header, where it ends, and its CRC."""
    file.seek(0)
    start = file.read(len(MAGIC) + 1)
    if not start or start[: len(MAGIC)] != MAGIC[: len(start)]:
        raise BitstreamError(
            f"expected a compressed file that starts with {MAGIC.decode()}, got something else; "
            "make one with audiovae encode"
        )
    if len(start) <= len(MAGIC):
        raise BitstreamError(f"expected a header, got {num_bytes} bytes in all; {_COPY_AGAIN}")
    if start[-1] > VERSION:
        raise BitstreamError(
            f"expected format version {VERSION} or older, got {start[-1]}; upgrade audiovae"
        )
    if start[-1] < 1:
        raise BitstreamError(f"expected format version 1 or {VERSION}, got 0; {_COPY_AGAIN}")
    window = start + file.read(min(num_bytes, MAX_HEADER_BYTES))
    reader = ByteReader(window, "the header")
    reader.take(len(start))
    body = reader.take(reader.varint())
    crc = zlib.crc32(window[: reader.position])
    if crc != int.from_bytes(reader.take(CRC_BYTES), "little"):
        raise BitstreamError(f"expected the header that was written, got damage; {_COPY_AGAIN}")
    return start[-1], AvaeHeader.from_bytes(body), reader.position, crc


def _read_table(
    file: IO[bytes], header: AvaeHeader, start: int, num_bytes: int, header_crc: int
) -> tuple[list[ChunkEntry], int]:
    """The entries, and where the last payload ends."""
    count = header.num_chunks * len(header.coded_channels)
    if count * _MIN_ENTRY_BYTES + CRC_BYTES > num_bytes - start:
        raise BitstreamError(
            f"expected a table of {count} chunks, got {num_bytes - start} bytes after the header; "
            f"the file is cut short: {_COPY_AGAIN}"
        )
    file.seek(start)
    window = file.read(count * _MAX_ENTRY_BYTES + CRC_BYTES)
    reader = ByteReader(window, "the table")
    fields = []
    for _ in range(count):
        length = reader.varint()
        if length > MAX_PAYLOAD_BYTES:
            raise _damaged_table()
        fields.append((length, *np.frombuffer(reader.take(2 * CRC_BYTES), "<u4").tolist()))
    crc = zlib.crc32(window[: reader.position], header_crc)
    if crc != int.from_bytes(reader.take(CRC_BYTES), "little"):
        raise _damaged_table()
    entries = []
    offset = start + reader.position
    for length, bytes_crc, crc_of_symbols in fields:
        entries.append(ChunkEntry(offset, length, bytes_crc, crc_of_symbols))
        offset += length
    return entries, offset


def _damaged_table() -> BitstreamError:
    return BitstreamError(
        f"expected the table of chunks that was written, got damage; {_COPY_AGAIN}"
    )


def _wrong_size(num_bytes: int, end: int) -> BitstreamError:
    if num_bytes < end:
        return BitstreamError(
            f"expected {end} bytes, got {num_bytes}: the file is cut short; {_COPY_AGAIN}, "
            "or decode what is there with --salvage"
        )
    return BitstreamError(
        f"expected {end} bytes, got {num_bytes}: something was appended; {_COPY_AGAIN}, "
        "or decode what is there with --salvage"
    )
