from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from audiovae.audio import AudioReader, is_audio_by_content, probe_audio, read_audio
from audiovae.errors import (
    AudioReadError,
    CorruptAudioError,
    EmptyAudioError,
    NonFiniteAudioError,
    NotAudioError,
    TruncatedAudioError,
    UnsupportedAudioError,
)
from tests.audio.test_files import encode_av, make, sound


def refuse(path: Path, kind: type[AudioReadError]) -> str:
    """Read a file that must be refused; return the message, checked to be one clear line."""
    with pytest.raises(kind) as caught:
        read_audio(path)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.startswith(f"{path}: expected ")
    assert "\n" not in text
    assert ", got " in text
    assert "; " in text
    return text


NOT_AUDIO = {
    "notes.txt": b"just some text, nothing to hear " * 50,
    "one.txt": b"x",
    "utf16.txt": "\ufeffhello world ".encode("utf-16-le") * 400,
    "page.html": b"<html><body>RIFF WAVE</body></html>",
    "png.wav": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 30,
    "jpeg.mp3": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 30,
    "list.m3u": b"#EXTM3U\n#EXTINF:1,x\nsecret.wav\n",
    "hls.wav": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
    "list.pls": b"[playlist]\nFile1=secret.wav\n",
    "script.wav": b"ffconcat version 1.0\nfile secret.wav\n",
    "random.mp3": np.random.default_rng(0).bytes(60_000),
    "zeros.mp3": bytes(30_000),
    "ones.mp3": b"\xff" * 30_000,
    "id3_only.mp3": b"ID3\x04\0\0\0\0\x01\0" + bytes(128),
    "webp.wav": b"RIFF\x00\x10\0\0WEBPVP8 " + bytes(500),
    "skip.txt": b"the skip is full, " * 40,
    "ogg_theora.ogg": b"OggS\0\2" + bytes(20) + b"\x01\x2a\x80theora" + bytes(40),
}


@pytest.mark.parametrize("name", NOT_AUDIO)
def test_not_audio(name: str, tmp_path: Path) -> None:
    make("wav_16", tmp_path)[0].rename(tmp_path / "secret.wav")
    path = tmp_path / name
    path.write_bytes(NOT_AUDIO[name])
    assert not is_audio_by_content(path)
    refuse(path, NotAudioError)


def test_a_compressed_file_says_how_to_hear_it(tmp_path: Path) -> None:
    path = tmp_path / "voice.avae"
    path.write_bytes(b"AVAE" + bytes(60))
    with pytest.raises(NotAudioError, match="audiovae decode"):
        read_audio(path)


def test_zip_is_not_audio(tmp_path: Path) -> None:
    wav, _ = make("wav_16", tmp_path)
    path = tmp_path / "archive.wav"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(wav)
    assert not is_audio_by_content(path)
    refuse(path, NotAudioError)


@pytest.mark.parametrize(
    ("suffix", "format_"), [(".mp4", "mp4"), (".mkv", "matroska"), (".avi", "avi")]
)
def test_video_without_sound_is_not_audio(suffix: str, format_: str, tmp_path: Path) -> None:
    path = tmp_path / ("film" + suffix)
    with av.open(str(path), "w", format=format_) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(3):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    assert not is_audio_by_content(path)
    refuse(path, NotAudioError)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    assert "no such file" in refuse(tmp_path / "missing.wav", AudioReadError)
    assert "a folder" in refuse(tmp_path, AudioReadError)
    fifo = tmp_path / "pipe.wav"
    os.mkfifo(fifo)
    assert "pipe or device" in refuse(fifo, AudioReadError)
    assert "pipe or device" in refuse(Path("/dev/zero"), AudioReadError)
    assert not is_audio_by_content(fifo)
    assert not is_audio_by_content(tmp_path / "missing.wav")
    with pytest.raises(AudioReadError):
        read_audio("a\0b.wav")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make("wav_16", tmp_path)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(AudioReadError, match="no permission"):
        probe_audio(path)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "nothing.wav"
    path.write_bytes(b"")
    assert "0 bytes" in refuse(path, EmptyAudioError)
    for format_ in ("WAV", "FLAC", "AIFF", "CAF"):
        soundfile.write(path, np.zeros((0, 1)), 44_100, "PCM_16", format=format_)
        refuse(path, EmptyAudioError)


def test_removing_is_advised_only_where_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "recording.wav"
    soundfile.write(path, np.zeros((0, 1)), 8_000)
    assert refuse(path, EmptyAudioError).endswith("got none; remove this empty file")
    soundfile.write(path, sound(1, 8_000, 1).T, 8_000)
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes(4) + data[44:])  # a size of 0, before a second of sound
    text = refuse(path, EmptyAudioError)
    assert "none by its header, in a file of 16044 bytes; restore the file" in text
    assert text.endswith("remove it only if it never held sound")


TRUNCATED = """
    wav_16 wavex rf64 w64 aiff caf au flac vorbis opus mp3 mp3_lame m4a mka wma wavpack tta
    avi avi_pcm voc nist
""".split()


@pytest.mark.parametrize("kind", TRUNCATED)
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_truncated(kind: str, keep: float, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path, seconds=3)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert is_audio_by_content(path)
    refuse(path, TruncatedAudioError)
    with pytest.raises(TruncatedAudioError):
        probe_audio(path)


def test_mp4_with_its_index_first_but_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "fast.m4a"
    encode_av(path, sound(3, 44_100, 1), 44_100, "mp4", "aac", {"movflags": "faststart"})
    assert probe_audio(path).num_samples > 0
    path.write_bytes(path.read_bytes()[:-3_000])
    refuse(path, TruncatedAudioError)


@pytest.mark.parametrize(("suffix", "format_"), [(".mp4", "mp4"), (".mov", "mov")])
def test_mp4_without_its_index_is_not_passed_over(
    suffix: str, format_: str, tmp_path: Path
) -> None:
    path = tmp_path / ("film" + suffix)
    encode_av(path, sound(1, 44_100, 1), 44_100, format_, "aac")
    path.write_bytes(path.read_bytes()[:-1])
    assert is_audio_by_content(path)
    assert "cut short" in refuse(path, TruncatedAudioError)


def test_voc_with_silence_to_be_made(tmp_path: Path) -> None:
    path, _ = make("voc", tmp_path)
    silence = b"\x03\x03\0\0" + struct.pack("<HB", 8_000, 131)
    path.write_bytes(path.read_bytes()[:-1] + silence + b"\0")
    assert "silence" in refuse(path, UnsupportedAudioError)


def test_wma_cut_between_two_packets(tmp_path: Path) -> None:
    path, _ = make("wma", tmp_path, seconds=3)
    data = path.read_bytes()
    for cut in range(len(data) // 2, len(data) - 97, 97):
        path.write_bytes(data[:cut])
        refuse(path, TruncatedAudioError)


def test_wavpack_cut_anywhere(tmp_path: Path) -> None:
    path, _ = make("wavpack", tmp_path, seconds=3)
    data = path.read_bytes()
    for cut in (200, data.find(b"wvpk", 1), data.rfind(b"wvpk"), data.rfind(b"wvpk") + 20):
        path.write_bytes(data[:cut])
        refuse(path, TruncatedAudioError)


def test_ogg_cut_between_two_pages(tmp_path: Path) -> None:
    path, _ = make("vorbis", tmp_path, seconds=6)
    data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"OggS")])
    assert "end-of-stream" in refuse(path, TruncatedAudioError)


def test_two_oggs_in_one_file(tmp_path: Path) -> None:
    first = make("vorbis", tmp_path)[0].read_bytes()
    second = make("opus", tmp_path)[0].read_bytes()
    path = tmp_path / "chain.ogg"
    path.write_bytes(first + second)
    refuse(path, UnsupportedAudioError)


JOINED = "wav_16 wav_u8 rf64 w64 aiff caf au flac wma m4a wavpack tta voc nist".split()


@pytest.mark.parametrize("kind", JOINED)
def test_a_second_recording_behind_the_first(kind: str, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data + data)
    text = refuse(path, UnsupportedAudioError)
    assert f"got another behind it, from byte {len(data)} on; split them" in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_non_finite_samples_name_the_second(value: float, subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    waveform = sound(2, 8_000, 2).astype(np.float64)
    waveform[1, 12_000:] = value
    soundfile.write(path, waveform.T, 8_000, subtype)
    assert probe_audio(path).num_samples == 16_000
    assert "second 1.500" in refuse(path, NonFiniteAudioError)
    assert read_audio(path, duration_seconds=1).num_samples == 8_000


def test_double_too_large_for_float32(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    soundfile.write(path, np.array([0.0, 1e300]), 8_000, "DOUBLE")
    refuse(path, NonFiniteAudioError)


def test_integers_that_are_called_floats(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    soundfile.write(path, np.array([0.5] * 4_000 + [3.3e38, -3e38]), 8_000, "FLOAT")
    assert "second 0.500" in refuse(path, NonFiniteAudioError)


@pytest.mark.parametrize("channels", [33, 255])
def test_too_many_channels(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "many.wav"
    soundfile.write(path, np.zeros((10, channels)), 8_000)
    assert f"got {channels}" in refuse(path, UnsupportedAudioError)


@pytest.mark.parametrize("rate", [999, 768_001])
def test_sample_rate_out_of_range(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, np.zeros((10, 1)), rate)
    assert f"{rate} Hz" in refuse(path, UnsupportedAudioError)


def test_damaged_flac_names_the_second(tmp_path: Path) -> None:
    path, _ = make("flac", tmp_path, seconds=6)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    text = refuse(path, CorruptAudioError)
    second = float(text.split("second ")[1].split()[0])
    assert 1.5 < second < 3.5
    assert read_audio(path, duration_seconds=1).num_samples == 44_100  # before the damage


@pytest.mark.parametrize("kind", ["vorbis", "opus", "ogg_flac"])
def test_damaged_or_missing_ogg_page(kind: str, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path, seconds=9)
    data = path.read_bytes()
    pages = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    middle = pages[len(pages) // 2]
    flipped = bytearray(data)
    flipped[middle + 300] ^= 1
    path.write_bytes(flipped)
    assert "checksum" in refuse(path, CorruptAudioError)
    path.write_bytes(data[:middle] + data[pages[len(pages) // 2 + 1] :])
    assert "missing" in refuse(path, CorruptAudioError)
    path.write_bytes(data[:middle] + bytes(400_000) + data[middle:])
    refuse(path, CorruptAudioError)


def test_damaged_mp3(tmp_path: Path) -> None:
    path, _ = make("mp3", tmp_path, seconds=6)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 5_000] = bytes(5_000)
    path.write_bytes(data)
    with pytest.raises(AudioReadError):
        read_audio(path)


def test_a_damaged_first_packet_is_damage(tmp_path: Path) -> None:
    """A container says where it lies, so it is no junk before the sound."""
    path, _ = make("m4a_alac", tmp_path)
    with av.open(str(path)) as file:
        start = next(packet for packet in file.demux() if packet.size).pos
    with path.open("r+b") as damaged:
        damaged.seek(start)
        damaged.write(b"\x40")  # an element that no decoder knows
    with pytest.raises(CorruptAudioError, match=r"damage near second 0\.0"):
        read_audio(path)


def test_damaged_alac_does_not_ask_for_patches(tmp_path: Path) -> None:
    path, _ = make("m4a_alac", tmp_path)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux() if packet.pos is not None]
    data = bytearray(path.read_bytes())
    data[places[5]] = 0x40  # an element that no decoder knows
    path.write_bytes(data)
    assert "second 0.5 (data of an unknown kind)" in refuse(path, CorruptAudioError)


@pytest.mark.parametrize(("at", "value"), [(20, b"\x77\x77"), (34, b"\0\0"), (34, b"\xff\0")])
def test_unknown_encoding(at: int, value: bytes, tmp_path: Path) -> None:
    path, _ = make("wav_16", tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:at] + value + data[at + len(value) :])
    assert "got an unknown one in a wav file" in refuse(path, UnsupportedAudioError)


def test_damaged_wavpack(tmp_path: Path) -> None:
    path, _ = make("wavpack", tmp_path, seconds=6)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(AudioReadError):
        read_audio(path)


def test_header_that_claims_an_absurd_length(tmp_path: Path) -> None:
    path, _ = make("flac", tmp_path)
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    path.write_bytes(data)
    refuse(path, TruncatedAudioError)
    aiff, _ = make("aiff", tmp_path)
    data = bytearray(aiff.read_bytes())
    at = data.find(b"COMM") + 10
    data[at : at + 4] = struct.pack(">I", 0xFFFFFFF0)
    aiff.write_bytes(data)
    assert probe_audio(aiff).num_samples < 60_000


FUZZED = {
    "wav_16": 25, "wav_ima": 15, "flac": 25, "vorbis": 25, "opus": 15, "mp3_lame": 30, "aiff": 15,
    "caf": 15, "m4a": 30, "w64": 10, "wma": 15, "mka": 15, "aac": 10,
    "avi": 15, "voc": 10, "nist": 10, "tta": 10, "wavpack": 15,
}  # fmt: skip
_FUZZ = """
import sys, faulthandler, numpy as np
from audiovae.audio import AudioReader, is_audio_by_content
from audiovae.errors import AudioReadError
for path in sys.argv[1:]:
    faulthandler.dump_traceback_later(20, exit=True)
    is_audio_by_content(path)
    try:
        with AudioReader(path) as reader:
            info = reader.info
            assert 1 <= info.num_channels <= 32 and 1000 <= info.sample_rate <= 768000
            for at in (0, info.num_samples // 2, max(0, info.num_samples - 30000)):
                waveform = reader.read(at, at + 30000)
                assert waveform.dtype == np.float32 and np.isfinite(waveform).all()
    except AudioReadError as error:
        assert "\\n" not in str(error) and "; " in str(error)
"""


def mutate(data: bytes, generator: np.random.Generator, reach: int) -> bytes:
    mutant = bytearray(data)
    for _ in range(int(generator.integers(1, 6))):
        at = int(generator.integers(0, reach))
        match generator.integers(4):
            case 0:
                mutant[at % len(mutant)] = int(generator.integers(256))
            case 1:
                mutant[at : at + 4] = b"\xff\xff\xff\xff"
            case 2:
                del mutant[at : at + int(generator.integers(1, 3_000))]
            case 3:
                mutant[at:at] = generator.bytes(int(generator.integers(1, 300)))
    return bytes(mutant)


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    """In one process of its own, so that a crash or a hang is seen and costs one start."""
    paths = []
    for kind, count in FUZZED.items():
        data = make(kind, tmp_path, seconds=1.2)[0].read_bytes()
        generator = np.random.default_rng(count)
        for index in range(count):
            path = tmp_path / f"{kind}_{index}.bin"
            path.write_bytes(mutate(data, generator, 200 if index % 3 else len(data)))
            paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FUZZ, *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert not done.stderr  # no library chatter


def test_reader_closes_after_a_failure(tmp_path: Path) -> None:
    path, _ = make("vorbis", tmp_path, seconds=9)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(AudioReadError):
            AudioReader(path)
    assert len(os.listdir("/proc/self/fd")) <= before
