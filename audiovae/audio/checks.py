"""Does a file hold all that its header promises?

libsndfile and FFmpeg both read a truncated file without a word, so the sizes written in
the container are compared with the size of the file before either of them opens it.
"""

from __future__ import annotations

import os
import re
import struct
from functools import lru_cache
from math import prod
from typing import BinaryIO

from audiovae.audio.boxes import Boxes
from audiovae.audio.extent import Extent, HeaderFacts, joined
from audiovae.audio.formats import mpeg_frame
from audiovae.audio.ogg import check_last_page, stored_order
from audiovae.audio.values import AudioPath, message
from audiovae.errors import UnsupportedAudioError

_MAX_CHUNKS = 100_000
_MPEG_TRAILER_BYTES = 128
_MIN_MPEG_BYTES, _MAX_MPEG_BYTES = 24, 1_441  # of a frame of layer III
_MIN_MPEG1_RATE = 32_000
_FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # with the block that comes first
_FLAC_START_BYTES = 8
_BLOCK_BYTES = 1 << 20
_NIST_BYTES = 1_024
_NIST_FACT = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d{1,18})", re.M)
_VOC_END = 0
_VOC_MADE_ON_PLAYING = (3, 6, 7)  # blocks: silence, begin and end of a repeat
_STREAMED_W64_BYTES = 1 << 62  # what ffmpeg writes to a pipe is about twice as large


def check_complete(path: AudioPath, file: BinaryIO, container: str, start: int) -> HeaderFacts:
    """Compare the sizes in a container with the file.

    Args:
        path: For the error message.
        file: The open file.
        container: As `formats.sniff` names it.
        start: Where the container begins.

    Returns:
        Facts for the reader.

    Raises:
        TruncatedAudioError: If the file ends before its header says.
    """
    size = file.seek(0, os.SEEK_END)
    check, boxes = _Chunks(path, file, start, size), Boxes(path, file, start, size)
    match container:
        case "wav" | "rf64":
            return check.riff()
        case "w64":
            return check.w64()
        case "aiff":
            check.aiff()
        case "caf":
            check.caf()
        case "au":
            check.au()
        case "nist":
            return check.nist()
        case "voc":
            check.voc()
        case "ogg" | "opus" | "vorbis":
            last = check_last_page(path, file)
            return HeaderFacts(last_page_granules=last, channel_order=stored_order(file))
        case "mp3" | "mp2":
            return check.mpeg()
        case "mp4":
            boxes.mp4()
        case "matroska":
            boxes.matroska()
        case "asf":
            boxes.asf()
        case "avi":
            boxes.avi()
        case "tta":
            boxes.tta()
        case "wavpack":
            boxes.wavpack()
    return HeaderFacts(start=start)


def check_one_flac(path: AudioPath) -> None:
    """Refuse a FLAC file with a second one behind the first, which libsndfile passes over.

    Args:
        path: It is read to its end.

    Raises:
        UnsupportedAudioError: If there is one.
    """
    status = os.stat(path)
    second_at = _second_flac(os.path.abspath(os.fspath(path)), status.st_size, status.st_mtime_ns)
    if second_at is not None:
        raise joined(path, second_at)


@lru_cache(maxsize=64)
def _second_flac(path: str, _size: int, _mtime_ns: int) -> int | None:
    found: list[int] = []
    data, at = b"", 0
    with open(path, "rb") as file:
        while len(found) < 2 and (block := file.read(_BLOCK_BYTES)):
            data = data[1 - _FLAC_START_BYTES :] + block  # one may begin in the last block
            at += len(block)
            found += [at - len(data) + start.start() for start in _FLAC_START.finditer(data)]
    return found[1] if len(found) > 1 else None


class _Chunks(Extent):
    def riff(self) -> HeaderFacts:
        order = ">" if self.at(self.start, 4) == b"RIFX" else "<"
        riff_size = struct.unpack(order + "I", self.at(self.start + 4, 4))[0]
        at = self.start + 12
        long_size: int | None = None
        for _ in range(_MAX_CHUNKS):
            head = self.at(at, 8)
            if len(head) < 8:
                break
            name, size = head[:4], struct.unpack(order + "I", head[4:])[0]
            if name == b"ds64":
                body = self.at(at + 8, 16)
                long_size = struct.unpack("<QQ", body)[1] if len(body) == 16 else None
            if name == b"data":
                return self._riff_data(at + 8, size, riff_size, long_size)
            at += 8 + size + (size & 1)
        if riff_size < 0xFFFFFF00:
            self.need(min(self.start + 8 + riff_size, at), "the RIFF header")
        return HeaderFacts()

    def _riff_data(
        self, body: int, size: int, riff_size: int, long_size: int | None
    ) -> HeaderFacts:
        if long_size is not None and size == 0xFFFFFFFF:
            size = long_size
            streamed = size in (0, 0xFFFFFFFFFFFFFFFF)
        else:
            # What ffmpeg and sox write to a pipe, where they cannot go back.
            streamed = size >= 0xFFFFFF00 or 0x7FFFF000 <= size <= 0x80000000
        if size == 0 and self.size > body:
            end = self.start + 8 + riff_size
            if riff_size in (0, 0xFFFFFFFF) or end <= body or end < self.size:
                return HeaderFacts(zero_size_at=body - 4)
        if not streamed:
            self.need(body + size, "the data chunk")
            self.alone(body + size)
            self.alone(self.start + 8 + riff_size)  # behind the chunks that follow the sound
        return HeaderFacts()

    def w64(self) -> HeaderFacts:
        at = self.start + 40
        for _ in range(_MAX_CHUNKS):
            head = self.at(at, 24)
            if len(head) < 24:
                break
            size = struct.unpack("<Q", head[16:])[0]
            if head[:4] == b"data":
                if size < _STREAMED_W64_BYTES:
                    self.alone(at + (size + 7 & ~7))  # chunks are padded to 8 bytes
                    self.alone(self.start + struct.unpack("<Q", self.at(self.start + 16, 8))[0])
                    return self._ends_at(at + size, "the data chunk")
                break
            at += max(24, size + 7 & ~7)
        return HeaderFacts(start=self.start)

    def _ends_at(self, end: int, what: str) -> HeaderFacts:
        self.need(end, what)
        self.alone(end)
        return HeaderFacts(start=self.start, stop=end if end < self.size else None)

    def aiff(self) -> None:
        at = self.start + 12
        for _ in range(_MAX_CHUNKS):
            self.alone(at)
            head = self.at(at, 8)
            if len(head) < 8:
                break
            size = struct.unpack(">I", head[4:])[0]
            if head[:4] in (b"SSND", b"COMM"):
                self.need(at + 8 + size, f"the {head[:4].decode()} chunk")
            at += 8 + size + (size & 1)

    def caf(self) -> None:
        at = self.start + 8
        for _ in range(_MAX_CHUNKS):
            self.alone(at)
            head = self.at(at, 12)
            if len(head) < 12:
                break
            size = struct.unpack(">q", head[4:])[0]
            if size < 0:
                break  # data to the end of the file
            if head[:4] in (b"data", b"pakt", b"kuki"):
                self.need(at + 12 + size, f"the {head[:4].decode()} chunk")
            at += 12 + size

    def au(self) -> None:
        head = self.at(self.start, 12)
        if len(head) == 12:
            order = ">" if head[:4] == b".snd" else "<"
            offset, size = struct.unpack(order + "II", head[4:])
            if size != 0xFFFFFFFF:
                self.need(self.start + offset + size, "the header")
                self.alone(self.start + offset + size)

    def nist(self) -> HeaderFacts:
        head = self.at(self.start, _NIST_BYTES)
        length = head[8:16].strip()
        facts = dict(_NIST_FACT.findall(head))
        if not length.isdigit() or len(facts) < 3 or b"embedded" in head:
            return HeaderFacts(start=self.start)  # unclear, or compressed
        sound_bytes = prod(int(value) for value in facts.values())
        return self._ends_at(self.start + int(length) + sound_bytes, "the header")

    def voc(self) -> None:
        at = self.start + int.from_bytes(self.at(self.start + 20, 2), "little")
        for _ in range(_MAX_CHUNKS):
            head = self.at(at, 4)
            if not head or head[0] == _VOC_END:
                break
            if head[0] in _VOC_MADE_ON_PLAYING:
                raise UnsupportedAudioError(
                    message(
                        self.path,
                        "a VOC file of sound alone",
                        "one with silence or repeats to be made while it plays",
                        "convert it with `sox IN OUT.wav`",
                    )
                )
            at += 4 + int.from_bytes(head[1:], "little")
            self.need(at, "its last block")
        self.alone(at + 1)

    def mpeg(self) -> HeaderFacts:
        head = self.at(self.start, 4_096)
        frame = mpeg_frame(head, 0)
        tag = max(head.find(b"Xing", 0, 256), head.find(b"Info", 0, 256))
        if frame is None or tag < 0 or len(head) < tag + 16:
            return HeaderFacts()
        flags, frames, declared = struct.unpack(">III", head[tag + 4 : tag + 16])
        if flags & 3 != 3:
            return HeaderFacts()
        end = self.size
        if self.at(end - _MPEG_TRAILER_BYTES, 3) == b"TAG":
            end -= _MPEG_TRAILER_BYTES
        present = end - self.start
        if present < declared - frame[0]:
            self.need(self.size + declared - present, "the Xing header")
        if abs(present - declared) > frame[0]:
            return HeaderFacts()
        can_be = frames * _MIN_MPEG_BYTES <= declared <= frames * _MAX_MPEG_BYTES
        # Layer III of the lower sampling rates, MPEG-2 and 2.5, has half the samples a frame.
        samples = 1152 if frame[2] >= _MIN_MPEG1_RATE else 576
        return HeaderFacts(mpeg_samples=frames * samples if can_be else 0)
