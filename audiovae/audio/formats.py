"""Which kind of audio a file is, by its bytes.

The content decides, never the name: a playlist or a script named `.wav` must not reach
a library that would follow it. Only kinds recognised here are ever opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from audiovae.audio.values import AudioPath

AUDIO_SUFFIXES = frozenset(
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .spx .mp3 .mp2 .mpga .aif .aiff .aifc"
    " .caf .au .snd .m4a .m4b .aac .wma .mka .weba .ac3 .eac3 .ec3 .dts .wv .tta .ape .amr"
    " .tak .mpc .dsf .voc .nist .sph".split()
)

COMPRESSED_SUFFIX = ".avae"
_AVAE_MAGIC = b"AVAE"

# Containers read by libsndfile; the others, by the name of FFmpeg's demuxer.
SOUNDFILE_CONTAINERS = frozenset(
    {"wav", "rf64", "w64", "aiff", "caf", "au", "nist", "flac", "opus", "vorbis"}
)
FFMPEG_FORMATS = {
    "wav": "wav", "w64": "w64", "aiff": "aiff", "caf": "caf", "au": "au", "flac": "flac",
    "ogg": "ogg", "opus": "ogg", "vorbis": "ogg", "mp3": "mp3", "mp2": "mp3", "aac": "aac",
    "ac3": "ac3", "eac3": "eac3", "dts": "dts", "mp4": "mov", "matroska": "matroska", "asf": "asf",
    "flv": "flv", "mpegts": "mpegts", "wavpack": "wv", "tta": "tta", "ape": "ape",
    "amr": "amr", "tak": "tak", "mpc": "mpc", "mpc8": "mpc8", "dsf": "dsf",
    "avi": "avi", "voc": "voc", "mpegps": "mpeg",
}  # fmt: skip
# Of those, the ones that may hold a codec only FFmpeg knows.
OPEN_CONTAINERS = frozenset({"wav", "w64", "aiff", "caf", "au"})
# These can hold video alone, so recognising them takes a look at their streams.
STREAM_CONTAINERS = frozenset({"mp4", "matroska", "asf", "flv", "mpegts", "avi", "mpegps"})

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"fLaC", "flac"), (b"caff\x00\x01", "caf"), (b".snd", "au"), (b"dns.", "au"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "w64"), (b"wvpk", "wavpack"),
    (b"TTA1", "tta"), (b"MAC ", "ape"), (b"#!AMR", "amr"), (b"tBaK", "tak"),
    (b"MP+", "mpc"), (b"MPCK", "mpc8"), (b"DSD \x1c\0\0\0\0\0\0\0", "dsf"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa", "asf"),
    (b"\x1a\x45\xdf\xa3", "matroska"), (b"FLV\x01", "flv"), (b"\x7f\xfe\x80\x01", "dts"),
    (b"Creative Voice File\x1a", "voc"), (b"NIST_1A\n", "nist"),
    (b"\0\0\1\xba", "mpegps"),
)  # fmt: skip
_OGG_AUDIO = {b"OpusHead": "opus", b"\x01vorbis": "vorbis", b"\x7fFLAC": "ogg", b"Speex   ": "ogg"}
_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"})
_MP4_WORDS = frozenset({b"wide", b"free", b"skip"})  # in a text too, which then claims a huge box
_MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_MPEG_KBPS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_RATES = (48_000, 44_100, 32_000)
_HEAD_BYTES = 16_384
_SEARCH_BYTES = 4_096


def is_compressed(path: AudioPath) -> bool:
    """Whether a file is a compressed one of this project, by its name or its content."""
    if Path(path).suffix.lower() == COMPRESSED_SUFFIX:
        return True
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to read a pipe may be to wait for ever
            return False
        with open(path, "rb") as file:
            return file.read(len(_AVAE_MAGIC)) == _AVAE_MAGIC
    except OSError:
        return False


def states_its_length(path: AudioPath) -> bool:
    """Whether both ends of a file are enough to know its length.

    Args:
        path: A file, or a copy of it that has only its ends.

    Returns:
        False for kinds that must be decoded, and for what is no audio.
    """
    try:
        with open(path, "rb") as file:
            found = sniff(file)
    except OSError:
        return False
    return found is not None and found[0] in SOUNDFILE_CONTAINERS


def claims_to_be_audio(path: AudioPath) -> bool:
    """Tell whether the name of a file says that it is audio.

    Args:
        path: Any path; it need not exist.

    Returns:
        True if its extension is one that audio files have.
    """
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def mpeg_frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Parse an MPEG audio frame header.

    Args:
        data: Bytes.
        at: Where the header should begin.

    Returns:
        Length in bytes, layer (1 to 3) and sample rate in Hz; None if there is none.
    """
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    kbps_index, rate_index = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    padding = data[at + 2] >> 1 & 1
    if version == 1 or layer == 4 or kbps_index in (0, 15) or rate_index == 3:
        return None
    rate = _MPEG_RATES[version][rate_index]
    table = _MPEG_KBPS[version == 3, layer if version == 3 else min(layer, 2)]
    bits_per_second = table[kbps_index - 1] * 1000
    if layer == 1:
        return (12 * bits_per_second // rate + padding) * 4, layer, rate
    slots = 72 if layer == 3 and version != 3 else 144
    return slots * bits_per_second // rate + padding, layer, rate


def _adts_frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    if at + 7 > len(data) or data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0:
        return None
    length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    rate_index = data[at + 2] >> 2 & 15
    return (length, 0, rate_index) if length > 7 and rate_index < 13 else None


def _ac3_frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    if at + 6 > len(data) or data[at : at + 2] != b"\x0b\x77":
        return None
    bsid = data[at + 5] >> 3
    rate_index = data[at + 4] >> 6
    if bsid > 10:
        return (((data[at + 2] & 7) << 8 | data[at + 3]) + 1) * 2, 16, 0
    size_index = data[at + 4] & 63
    if rate_index == 3 or size_index >= 38:
        return None
    kbps, rate = _AC3_KBPS[size_index >> 1], _AC3_RATES[rate_index]
    words = kbps * 96_000 // rate + (size_index & 1 if rate == 44_100 else 0)
    return words * 2, 8, rate


def _frames_in_a_row(
    data: bytes, at: int, parse: Callable[[bytes, int], tuple[int, int, int] | None], at_end: bool
) -> int:
    """Count consecutive frames of one kind; a run that ends with the file counts as many."""
    first = parse(data, at)
    count = 0
    while (frame := parse(data, at)) and first and frame[1:] == first[1:]:
        count += 1
        at += frame[0]
        if at >= len(data) or data[at : at + 3] == b"TAG":
            return count if not at_end or at > len(data) else 99
    return count


def _raw_frames(data: bytes, tagged: bool, at_end: bool) -> tuple[str, int] | None:
    """Find a stream of bare frames and where it begins; the closest thing to a magic number."""
    for at in range(min(len(data), max(1, min(_SEARCH_BYTES, len(data) - 4)))):
        if data[at] != 0xFF and data[at : at + 2] != b"\x0b\x77":
            continue
        enough = 3 if at == 0 else 4
        if tagged and at == 0:
            enough = 1
        frame = mpeg_frame(data, at)
        if frame and _frames_in_a_row(data, at, mpeg_frame, at_end) >= enough:
            return ("mp3" if frame[1] == 3 else "mp2"), at
        if _frames_in_a_row(data, at, _adts_frame, at_end) >= enough:
            return "aac", at
        ac3 = _ac3_frame(data, at)
        if ac3 and _frames_in_a_row(data, at, _ac3_frame, at_end) >= enough:
            return ("eac3" if ac3[1] == 16 else "ac3"), at
    return None


def _ogg_kind(data: bytes) -> str | None:
    """Look at the first packets, one of each multiplexed stream."""
    at = 0
    while data[at : at + 4] == b"OggS" and at + 27 < len(data) and data[at + 5] & 2:
        segments = data[at + 26]
        body = at + 27 + segments
        for magic, kind in _OGG_AUDIO.items():
            if data.startswith(magic, body):
                return kind
        at = body + sum(data[at + 27 : body])
    return None


def _begins_with_box(data: bytes, size: int) -> bool:
    name = data[4:8]
    if name in _MP4_WORDS and int.from_bytes(data[:4], "big") > size:
        return False
    return name in _MP4_BOXES and (name == b"ftyp" or len(data) >= 16)


def skip_id3(file: BinaryIO) -> int:
    """Return where the bytes after any leading ID3v2 tags begin.

    Args:
        file: The open file; its position is moved.

    Returns:
        Offset in bytes.
    """
    at = 0
    for _ in range(16):
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            break
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    return at


def sniff(file: BinaryIO) -> tuple[str, int] | None:
    """Name the kind of audio container in an open file.

    Args:
        file: The open file; its position is moved.

    Returns:
        The container ("wav", ...; "opus" and "vorbis" for those in Ogg, "ogg" for the rest) and
        the offset at which it begins; None if it is nothing that this package reads.
    """
    start = skip_id3(file)
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    data = file.read(_HEAD_BYTES)
    if not data and start:
        return None
    if data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE":
        return "wav", start
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi", start
    if data[:4] in (b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return "rf64", start
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "aiff", start
    if data[:4] == b"OggS":
        kind = _ogg_kind(data)
        return (kind, start) if kind else None
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind, start
    if _begins_with_box(data, size - start):
        return "mp4", start
    if len(data) >= 188 * 4 and all(data[188 * i] == 0x47 for i in range(len(data) // 188)):
        return "mpegts", start
    found = _raw_frames(data, tagged=start > 0, at_end=start + len(data) >= size)
    return (found[0], start + found[1]) if found else None
