"""Integers as bytes: varints for the file, Rice codes for sorted positions."""

from __future__ import annotations

from collections.abc import Sequence

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


def pack_positions(positions: Sequence[int], total: int) -> bytes:
    """Code sorted distinct positions below `total` in about `log2(total / count) + 1.5` bits each.

    A varint of their count, then the Rice code of each distance from the one before (less one):
    quotient in unary (ones, closed by a zero), then `k` low bits, most significant first; padded
    with zeros to a whole byte.
    """
    out = write_varint(len(positions))
    if not positions:
        return out
    low_bits = _rice_parameter(total, len(positions))
    bits = []
    previous = -1
    for position in positions:
        gap = position - previous - 1
        bits.append("1" * (gap >> low_bits) + "0")
        bits.append(format(gap & ((1 << low_bits) - 1), f"0{low_bits}b") if low_bits else "")
        previous = position
    joined = "".join(bits)
    num_bytes = -(-len(joined) // 8)
    return out + int(joined.ljust(8 * num_bytes, "0"), 2).to_bytes(num_bytes, "big")


def unpack_positions(reader: ByteReader, total: int) -> list[int]:
    """Read what `pack_positions` wrote.

    Raises:
        BitstreamError: If the bytes are not of sorted positions below `total`.
    """
    count = reader.varint()
    if count > total:
        raise _damaged(total)
    if count == 0:
        return []
    low_bits = _rice_parameter(total, count)
    data = reader.take(reader.remaining)
    # Each position takes at most low_bits + 1 bits besides the quotients, which sum to less than
    # total >> low_bits: nothing beyond that is looked at, however long the payload is.
    longest = count * (low_bits + 1) + (total >> low_bits)
    bits = "".join(f"{byte:08b}" for byte in data[: -(-longest // 8)])
    positions = []
    cursor, previous = 0, -1
    for _ in range(count):
        zero = bits.find("0", cursor)
        stop = zero + 1 + low_bits
        if zero < 0 or stop > len(bits):
            raise _damaged(total)
        low = int(bits[zero + 1 : stop], 2) if low_bits else 0
        previous += 1 + ((zero - cursor) << low_bits) + low
        if previous >= total:
            raise _damaged(total)
        positions.append(previous)
        cursor = stop
    used_bytes = -(-cursor // 8)
    if "1" in bits[cursor : 8 * used_bytes]:
        raise _damaged(total)
    reader.position -= len(data) - used_bytes
    return positions


def _rice_parameter(total: int, count: int) -> int:
    """Low bits that suit the mean gap: floor(log2(ln 2 * total / count)), in whole numbers."""
    return max(0, (total * 11 // (16 * count)).bit_length() - 1)


def _damaged(total: int) -> BitstreamError:
    return BitstreamError(
        f"expected sorted positions of corrections below {total}, got damaged ones; "
        "copy the file again from its source"
    )
