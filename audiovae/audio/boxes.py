"""Do files made of nested boxes, and of frames that are listed, hold all that they promise?"""

from __future__ import annotations

import struct

from audiovae.audio.extent import Extent, joined

_MAX_BOXES = 100_000
_MP4_SOUND = frozenset({b"moof", b"mdat"})
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_MATROSKA = frozenset({b"\x1a\x45\xdf\xa3", _MATROSKA_SEGMENT})  # a second file is read as well
_ASF_HEADER_BYTES = 30
_ASF_FACTS = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the File Properties Object,
_ASF_FACTS_BYTES = 92  # as far as it is needed
_ASF_LIVE = 1
_TTA_HEADER = struct.Struct("<4sHHHIII")
_WAVPACK_HEADER = struct.Struct("<4sIHBBIIII")
_WAVPACK_FIRST = 1 << 11  # of the blocks, one for each pair of channels, that begin at a sample
_UNKNOWN_SAMPLES = 0xFFFFFFFF


class Boxes(Extent):
    """The checks of MP4, Matroska, AVI, ASF, TTA and WavPack."""

    def mp4(self) -> None:
        """Every box is whole, and the index is among them."""
        at = self.start
        names: set[bytes] = set()
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
            is_whole = names >= {b"moov", b"mdat"}
            if is_whole and name == b"ftyp":
                raise joined(self.path, at)
            if is_whole and name not in _MP4_SOUND and at + size > self.size:
                break  # bytes after the last box, or a box without sound
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
                    self.alone(self.start + declared)
                break
            at += max(struct.unpack_from("<Q", head, 16)[0], 24)

    def matroska(self) -> None:
        """The header and the segments are whole."""
        at, has_segment = self.start, False
        for _ in range(8):
            head = self.at(at, 16)
            if len(head) < 12:
                break
            id_bytes = 9 - head[0].bit_length()
            if id_bytes > 4 or (has_segment and head[:id_bytes] not in _MATROSKA):
                break  # bytes after the last segment
            has_segment = has_segment or head[:id_bytes] == _MATROSKA_SEGMENT
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

    def avi(self) -> None:
        """Every part is whole; long files have several."""
        at = self.start
        for _ in range(_MAX_BOXES):
            head = self.at(at, 8)
            if len(head) < 8 or head[:4] != b"RIFF":
                break
            size = struct.unpack("<I", head[4:])[0]
            if size in (0, 0xFFFFFFFF):
                break  # written to a pipe
            self.need(at + 8 + size, "the RIFF header")
            at += 8 + size + (size & 1)

    def tta(self) -> None:
        """All frames of the table are there."""
        head = self.at(self.start, _TTA_HEADER.size)
        if len(head) < _TTA_HEADER.size:
            return
        *_, rate, samples, _ = _TTA_HEADER.unpack(head)
        frames = -(-samples // max(1, 256 * rate // 245))
        table_at = self.start + _TTA_HEADER.size
        body = table_at + 4 * frames + 4
        self.need(body, "the header")
        sizes = self.at(table_at, 4 * frames)
        end = body + sum(size for (size,) in struct.iter_unpack("<I", sizes))
        self.need(end, "the table of frames")
        self.alone(end)

    def wavpack(self) -> None:
        """Every block is whole, and the last one reaches the end of the sound."""
        at, total, done = self.start, _UNKNOWN_SAMPLES, 0
        for _ in range(_MAX_BOXES):
            head = self.at(at, _WAVPACK_HEADER.size)
            if len(head) < _WAVPACK_HEADER.size:
                break
            name, size, _, *high, length, index, samples, flags = _WAVPACK_HEADER.unpack(head)
            if name != b"wvpk":
                self.alone(at)
                return  # tags, or damage
            if any(high):
                return  # more samples than 32 bits can count
            if samples and flags & _WAVPACK_FIRST:
                if done == total:
                    self.alone(at)
                total = length if index == 0 else total
                done = index + samples
            self.need(at + 8 + size, "its last block")
            at += 8 + size
        if at + _WAVPACK_HEADER.size > self.size and done < total != _UNKNOWN_SAMPLES:
            raise self.cut_short(
                f"{total} samples (the first block says so)", f"{done}: the file is cut short"
            )
