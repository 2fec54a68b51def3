"""Writing a compressed file: chunks in order, in fixed memory, and all or nothing."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO

from audiovae.audio.values import unwritable
from audiovae.codec.container import CRC_BYTES, MAGIC, MAX_PAYLOAD_BYTES
from audiovae.codec.header import AvaeHeader
from audiovae.codec.integers import write_varint
from audiovae.codec.types import CodedChunk
from audiovae.replacing import replacing

_SPOOL_BYTES = 1 << 20


class AvaeWriter:
    """Write a compressed file; it appears whole, under its name, or not at all.

    Chunks are appended chunk by chunk, and within a chunk by stored channel. Memory stays fixed:
    payloads wait in a spooled temporary file until the table is complete.

    Args:
        target: A path, or a binary stream that is left open.
        header: Facts of the file.
    """

    def __init__(self, target: str | Path | IO[bytes], header: AvaeHeader) -> None:
        self.header = header
        self._target = target
        self._num_entries = header.num_chunks * len(header.coded_channels)
        self._entries: list[bytes] = []
        # Beside the file, where there is to be room for as much again.
        self._folder = Path(tempfile.gettempdir())
        if isinstance(target, (str, Path)):
            self._folder = Path(target).parent
        self._payloads = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(self._folder))

    def __enter__(self) -> AvaeWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, or leave nothing behind after an error."""
        if kind is None:
            self.close()
        else:
            self._payloads.close()

    def append(self, chunk: CodedChunk) -> None:
        """Add the next chunk.

        Raises:
            ValueError: If it is not the one that the header has next.
            AudioWriteError: If there is no room for it.
        """
        index, place = divmod(len(self._entries), len(self.header.coded_channels))
        if index >= self.header.num_chunks:
            raise ValueError(f"expected {self._num_entries} chunks by the header, got one more")
        expected = self.header.chunk_frames(index)
        if chunk.num_frames != expected or len(chunk.payload) > MAX_PAYLOAD_BYTES:
            channel = self.header.coded_channels[place]
            raise ValueError(
                f"expected {expected} frames and at most {MAX_PAYLOAD_BYTES} bytes for chunk "
                f"{index} of channel {channel}, got {chunk.num_frames} and {len(chunk.payload)}"
            )
        checksums = [zlib.crc32(chunk.payload), chunk.symbols_crc]
        self._entries.append(
            write_varint(len(chunk.payload)) + b"".join(_crc_bytes(crc) for crc in checksums)
        )
        try:
            self._payloads.write(chunk.payload)
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def close(self) -> None:
        """Write the file.

        Raises:
            ValueError: If chunks are missing.
            AudioWriteError: If the file cannot be written.
        """
        if self._payloads.closed:
            return
        with self._payloads:
            if len(self._entries) != self._num_entries:
                raise ValueError(
                    f"expected {self._num_entries} chunks by the header, got {len(self._entries)}"
                )
            if isinstance(self._target, (str, Path)):
                self._write_path(Path(self._target))
            else:
                self._write(self._target)

    def _write_path(self, path: Path) -> None:
        try:
            with replacing(path) as draft, draft.open("wb") as file:
                self._write(file)
        except OSError as error:
            raise unwritable(path, error) from error

    def _write(self, file: IO[bytes]) -> None:
        body = self.header.to_bytes()
        head = MAGIC + bytes([self.header.version]) + write_varint(len(body)) + body
        table = b"".join(self._entries)
        file.write(head + _crc_bytes(zlib.crc32(head)))
        file.write(table + _crc_bytes(zlib.crc32(table, zlib.crc32(head))))
        self._payloads.seek(0)
        shutil.copyfileobj(self._payloads, file)


def head_bytes(header: AvaeHeader) -> int:
    """Size of a file of this header without the entries of its table and their payloads."""
    body = len(header.to_bytes())
    return len(MAGIC) + 1 + len(write_varint(body)) + body + 2 * CRC_BYTES


def chunk_bytes(payload_bytes: int) -> int:
    """Size of a payload of so many bytes together with its entry."""
    return len(write_varint(payload_bytes)) + 2 * CRC_BYTES + payload_bytes


def _crc_bytes(crc: int) -> bytes:
    return crc.to_bytes(CRC_BYTES, "little")
