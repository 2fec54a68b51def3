"""Do files made of nested boxes, and of frames that are listed, hold all that they promise?"""

from __future__ import annotations

import struct

from audiovae.audio.extent import Extent

_MAX_BOXES = 100_000
_ASF_HEADER_BYTES = 30
_ASF_FACTS = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the File Properties Object,
_ASF_FACTS_BYTES = 92  # as far as it is needed
_ASF_LIVE = 1


class Boxes(Extent):
    """The checks of MP4, Matroska and ASF."""

    def mp4(self) -> None:
        """Every box is whole, and the index is among them."""
        at = self.start
        names = set()
        for _ in range(_MAX_BOXES):
            head = self.at(at, 16)
            if len(head) < 8:
                break
            size, name = struct.unpack(">I4s", head[:8])
            if size == 1 and len(head) == 16:
                size = struct.unpack(">Q", head[8:])[0]
            if size == 0:
                size = self.size - at
            if size < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
                break  # bytes after the last box
            self.need(at + size, f"the {name.decode('latin-1')} box")
            names.add(name)
            at += size
        if b"moov" not in names:
            raise self.cut_short("an MP4 index (moov box)", "none: the recording was not finished")

    def asf(self) -> None:
        """The file is as long as its properties say."""
        at = self.start + _ASF_HEADER_BYTES
        for _ in range(_MAX_BOXES):
            head = self.at(at, _ASF_FACTS_BYTES)
            if len(head) < _ASF_FACTS_BYTES:
                break
            if head[:16] == _ASF_FACTS:
                declared = struct.unpack_from("<Q", head, 40)[0]
                if not struct.unpack_from("<I", head, 88)[0] & _ASF_LIVE:
                    self.need(self.start + declared, "the header")
                break
            at += max(struct.unpack_from("<Q", head, 16)[0], 24)

    def matroska(self) -> None:
        """The header and the segment are whole."""
        at = self.start
        for _ in range(8):
            head = self.at(at, 16)
            if len(head) < 12:
                break
            id_bytes = 9 - head[0].bit_length()
            if id_bytes > 4:
                break
            first = head[id_bytes]
            size_bytes = 9 - first.bit_length()
            if size_bytes > 8:
                break
            mask = (1 << 7 * size_bytes) - 1
            value = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & mask
            if value == mask:
                break  # a live stream: unknown length
            end = at + id_bytes + size_bytes + value
            self.need(end, "the Matroska segment")
            at = end
