"""Whole numbers as bytes, and a cursor that reads them."""

from __future__ import annotations

from audiovae.errors import BitstreamError

_MAX_VARINT_BYTES = 9


def write_varint(value: int) -> bytes:
    """Little-endian base 128, seven bits a byte, the high bit set on all but the last.

    >>> write_varint(127).hex(), write_varint(300).hex()
    ('7f', 'ac02')
    """
    if not 0 <= value < 1 << (7 * _MAX_VARINT_BYTES):
        raise ValueError(f"expected 0 <= value < 2^63, got {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class ByteReader:
    """A cursor over bytes that refuses to run past their end.

    Args:
        data: What is read.
        name: What the bytes are, for messages.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self.position

    def take(self, count: int) -> bytes:
        """Read `count` bytes."""
        if count > self.remaining:
            raise BitstreamError(
                f"expected {count} more bytes of {self._name}, got {self.remaining}; "
                "the file is cut short: copy it again from its source"
            )
        taken = self._data[self.position : self.position + count]
        self.position += count
        return taken

    def varint(self) -> int:
        """Read an integer of 1 to 9 bytes in its shortest form."""
        value = 0
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    break
                return value
        raise BitstreamError(
            f"expected an integer of {self._name} in its shortest form, got a longer one; "
            "the file is damaged: copy it again from its source"
        )
