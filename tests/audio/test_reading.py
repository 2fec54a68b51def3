from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiovae.audio import (
    AudioReader,
    AudioWriter,
    probe_audio,
    read_audio,
    via_pyav,
    via_soundfile,
    write_audio,
)
from audiovae.errors import ConfigError
from tests.audio.test_files import (
    ALL_KINDS,
    LOSSY_TOLERANCE,
    PYAV_KINDS,
    SOUNDFILE_KINDS,
    encode_av,
    make,
    sound,
)

LOSSLESS_TOLERANCE = {"wav_u8": 2e-2, "wav_float": 0.0, "wav_double": 1e-7, "aifc": 0.0}
INTEGER_TOLERANCE = 2.0**-14
LOSSY = {"wav_alaw", "wav_ulaw", "wav_ima", "wav_ms", "wav_gsm", "vorbis", "opus", "mp3"}


def whole(path: Path) -> np.ndarray:
    with AudioReader(path) as reader:
        return reader.read(0, reader.info.num_samples)


@pytest.mark.parametrize("kind", [k for k in SOUNDFILE_KINDS if k not in LOSSY | {"mp3_mono"}])
def test_lossless_kinds_return_what_was_written(kind: str, tmp_path: Path) -> None:
    path, waveform = make(kind, tmp_path)
    tolerance = LOSSLESS_TOLERANCE.get(kind, INTEGER_TOLERANCE)
    np.testing.assert_allclose(whole(path), waveform, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", [*sorted(LOSSY), "mp3_mono", *PYAV_KINDS])
def test_lossy_kinds_return_it_in_place(kind: str, tmp_path: Path) -> None:
    path, waveform = make(kind, tmp_path)
    decoded = whole(path)
    num = waveform.shape[1]
    # Kinds that store no encoder delay start late by one, as every decoder of FFmpeg has it.
    delays = {"aac": 1024, "ts": 1024, "ac3": 256, "eac3": 256, "mp2": 481, "mp3_in_wav": 1105}
    delays |= {"avi": 1105, "avi_ac3": 256, "mpg": 481}
    delay = delays.get(kind, 0)
    if kind == "wma":  # its encoder in FFmpeg loses the first frame
        waveform = waveform[:, 2_048:]
    got = decoded[:, delay : delay + num]
    middle = slice(4_000, min(num, got.shape[1]) - 4_000)
    assert np.abs(got[:, middle] - waveform[:, middle]).max() < LOSSY_TOLERANCE
    error = np.sqrt(np.mean((got[:, middle] - waveform[:, middle]) ** 2))
    assert error < (0.5 if kind == "wav_gsm" else 0.3) * np.sqrt(np.mean(waveform**2))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_any_range_equals_the_slice_of_the_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(via_pyav, "SEGMENT_SECONDS", 1)
    monkeypatch.setattr(via_soundfile, "SEGMENT_SECONDS", 1)
    path, _ = make(kind, tmp_path, seconds=4.3)
    expected = whole(path)
    total = expected.shape[1]
    generator = np.random.default_rng(0)
    starts = [*generator.integers(0, total, 8), total - 1, 0, total - 2_000]
    with AudioReader(path) as reader:
        for start in starts:
            np.testing.assert_array_equal(
                reader.read(start, start + 3_000), expected[:, start : start + 3_000]
            )
        assert reader.read(-5, 3).shape[1] == 3
        assert reader.read(total, total + 9).shape == (expected.shape[0], 0)
        assert reader.read(9, 3).shape[1] == 0
    for start in starts[:3]:
        with AudioReader(path) as reader:  # nothing read before
            np.testing.assert_array_equal(
                reader.read(start, start + 500), expected[:, start : start + 500]
            )


@pytest.mark.parametrize("kind", ["mp3", "mp3_lame", "m4a", "wma", "webm", "ogg_flac"])
def test_whole_decode_is_that_of_ffmpeg(kind: str, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path)
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            if not frame.format.is_planar:
                samples = samples.reshape(-1, frame.layout.nb_channels).T
            frames.append(samples)
    expected = np.concatenate(frames, axis=1)
    scale = 32_768 if expected.dtype == np.int16 else 1
    np.testing.assert_array_equal(whole(path), (expected / scale).astype(np.float32))


@pytest.fixture(scope="module")
def mp3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path, _ = make("mp3_lame", tmp_path_factory.mktemp("mp3"), seconds=9)
    return path, whole(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.integers(-100, 400_000), length=st.integers(0, 20_000))
def test_random_ranges(mp3: tuple[Path, np.ndarray], start: int, length: int) -> None:
    path, expected = mp3
    with AudioReader(path) as reader:
        got = reader.read(start, start + length)
    np.testing.assert_array_equal(got, expected[:, max(0, start) : max(0, start + length)])


@pytest.mark.parametrize(
    ("kind", "depth", "encoding", "reader"),
    [
        ("wav_u8", 8, "PCM_U8", "soundfile"),
        ("wav_16", 16, "PCM_16", "soundfile"),
        ("wav_24", 24, "PCM_24", "soundfile"),
        ("wav_32", 32, "PCM_32", "soundfile"),
        ("wav_float", 32, "FLOAT", "soundfile"),
        ("wav_double", 64, "DOUBLE", "soundfile"),
        ("wav_alaw", 16, "ALAW", "soundfile"),
        ("vorbis", 16, "VORBIS", "soundfile"),
        ("mp3", 16, "MP3", "pyav"),
        ("m4a", 16, "AAC", "pyav"),
        ("wavpack", 16, "WAVPACK", "pyav"),
    ],
)
def test_source_facts(kind: str, depth: int, encoding: str, reader: str, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path)
    info = probe_audio(path)
    assert (info.bit_depth, info.encoding, info.reader) == (depth, encoding, reader)
    assert info.duration_seconds == info.num_samples / info.sample_rate


def test_time_ranges(tmp_path: Path) -> None:
    path, waveform = make("flac", tmp_path)
    clip = read_audio(path, start_seconds=0.5, duration_seconds=0.25)
    assert clip.num_samples == 11_025
    assert clip.duration_seconds == 0.25
    assert clip.num_channels == 2
    np.testing.assert_allclose(
        clip.waveform, waveform[:, 22_050 : 22_050 + 11_025], atol=INTEGER_TOLERANCE
    )
    assert read_audio(path, start_seconds=1.2, duration_seconds=99).num_samples == round(
        0.1 * 44_100
    )
    assert read_audio(path, sample_rate=22_050).sample_rate == 22_050
    with pytest.raises(ConfigError, match="choose one inside"):
        read_audio(path, start_seconds=5)


def test_wrong_extension_and_strange_names_work(tmp_path: Path) -> None:
    path, _ = make("mp3", tmp_path)
    expected = whole(path)
    for name in ["song.wav", "-", "http:x.wav", "concat:a|b.wav", "ü ñ\n.wav", "no_suffix"]:
        path = path.rename(tmp_path / name)
        np.testing.assert_array_equal(whole(path), expected)


def test_relative_path_with_a_colon_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = make("m4a", tmp_path)
    path.rename(tmp_path / "http:a.m4a")
    monkeypatch.chdir(tmp_path)
    assert probe_audio("http:a.m4a").encoding == "AAC"


@pytest.mark.parametrize("kind", ["flac", "mp3", "wav_16", "aac"])
def test_id3_tag_in_front(kind: str, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path)
    expected = whole(path)
    size = 40_000  # album art: beyond what is looked at first
    tag = b"ID3\x04\0\0" + bytes([0, size >> 14 & 127, size >> 7 & 127, size & 127]) + bytes(size)
    path.write_bytes(tag + path.read_bytes())
    np.testing.assert_array_equal(whole(path), expected)


def test_mp3_without_length_or_with_a_trailing_tag(tmp_path: Path) -> None:
    path = tmp_path / "bare.mp3"
    waveform = sound(3, 44_100, 2)
    encode_av(path, waveform, 44_100, "mp3", "libmp3lame", {"write_xing": "0"})
    assert 0 <= probe_audio(path).num_samples - waveform.shape[1] < 4_096
    expected = whole(path)
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    np.testing.assert_array_equal(whole(path)[:, : expected.shape[1]], expected)
    tagged, _ = make("mp3_lame", tmp_path)
    expected = whole(tagged)
    tagged.write_bytes(tagged.read_bytes() + b"TAG" + bytes(125))
    np.testing.assert_array_equal(whole(tagged), expected)


@pytest.mark.parametrize("tagged", [True, False])
def test_mp3_of_varying_rate_with_padding_in_front(tagged: bool, tmp_path: Path) -> None:
    path = tmp_path / "padded.mp3"
    waveform = np.zeros(20 * 44_100, np.float32)
    waveform[: 2 * 44_100] = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * 44_100)
    soundfile.write(path, waveform, 44_100, "MPEG_LAYER_III", format="MP3", bitrate_mode="VARIABLE")
    expected = probe_audio(path).num_samples
    tag = b"ID3\x04\0\0\0\0\0\0" if tagged else b""
    path.write_bytes(tag + bytes(2_000) + path.read_bytes())
    assert 0 <= probe_audio(path).num_samples - expected < 4_096


def pcm_wav(data: bytes, *, riff: int | None = None, size: int | None = None, before: bytes = b"",
            after: bytes = b"") -> bytes:  # fmt: skip
    fmt = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 16_000, 2, 16)
    size = len(data) if size is None else size
    body = b"WAVE" + before + fmt + b"data" + struct.pack("<I", size) + data + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


SAMPLES = np.arange(-500, 501, dtype="<i2")


@pytest.mark.parametrize(
    ("riff", "size"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (36, 0), (0xFFFFFFFF, 0), (0x7FFFF024, 0x7FFFF000)],
)
def test_streamed_wav_is_read_to_its_end(riff: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    path.write_bytes(pcm_wav(SAMPLES.tobytes(), riff=riff, size=size))
    np.testing.assert_array_equal(whole(path)[0] * 32_768, SAMPLES)
    with AudioReader(path) as reader:
        assert reader.read(100, 103)[0, 0] * 32_768 == -400


def test_streamed_w64_is_read_to_its_end(tmp_path: Path) -> None:
    path, _ = make("w64", tmp_path)
    expected, data = whole(path), bytearray(path.read_bytes())
    size = data.find(b"data", 40) + 16
    data[16:24] = b"\xff" * 8
    data[size : size + 8] = struct.pack("<Q", 2**63 - 1)
    path.write_bytes(data)
    np.testing.assert_array_equal(whole(path), expected)


def test_wav_with_other_chunks(tmp_path: Path) -> None:
    path = tmp_path / "chunks.wav"
    listing = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    path.write_bytes(pcm_wav(SAMPLES.tobytes(), before=listing, after=listing))
    np.testing.assert_array_equal(whole(path)[0] * 32_768, SAMPLES)


def test_w64_with_a_chunk_behind_the_sound(tmp_path: Path) -> None:
    path, _ = make("w64", tmp_path)
    expected = whole(path)
    name = bytes.fromhex("62657874f3acd3118cd100c04f8edb8a")  # bext
    data = bytearray(path.read_bytes() + name + struct.pack("<Q", 624) + b"\x7f" * 600)
    data[16:24] = struct.pack("<Q", len(data))
    path.write_bytes(data)
    np.testing.assert_array_equal(whole(path), expected)
    with AudioReader(path) as reader:
        np.testing.assert_array_equal(reader.read(50_000, 50_003), expected[:, 50_000:50_003])


@pytest.mark.parametrize("behind", [b"JUNK" * 100, b"TAG" + b"Some title".ljust(125)])
@pytest.mark.parametrize("kind", ["m4a", "mka", "webm"])
def test_bytes_behind_the_last_box_do_not_matter(kind: str, behind: bytes, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path)
    expected = whole(path)
    path.write_bytes(path.read_bytes() + behind)
    np.testing.assert_array_equal(whole(path), expected)


def test_nist_with_bytes_behind_the_sound(tmp_path: Path) -> None:
    path, _ = make("nist", tmp_path)
    expected = whole(path)
    path.write_bytes(path.read_bytes() + b"\x7f" * 600)
    np.testing.assert_array_equal(whole(path), expected)


def test_streamed_flac_counts_by_decoding(tmp_path: Path) -> None:
    path, _ = make("flac", tmp_path)
    expected = whole(path)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert probe_audio(path).num_samples == expected.shape[1]
    np.testing.assert_array_equal(whole(path), expected)


@pytest.mark.parametrize("kind", ["wav_16", "flac", "aiff", "wav_float", "caf", "au"])
def test_one_sample(kind: str, tmp_path: Path) -> None:
    _, format_, subtype, rate, channels = SOUNDFILE_KINDS[kind]
    path = tmp_path / "one"
    soundfile.write(path, np.full((1, channels), 0.5), rate, subtype, format=format_)
    np.testing.assert_allclose(whole(path), np.full((channels, 1), 0.5), atol=INTEGER_TOLERANCE)


def test_float_beyond_full_scale_clipping_and_dc_pass(tmp_path: Path) -> None:
    path = tmp_path / "hot.wav"
    waveform = np.array([[3.5, -2.0, 1.0, 1.0, 1.0, 0.25]], np.float32)
    soundfile.write(path, waveform.T, 44_100, "FLOAT")
    np.testing.assert_array_equal(whole(path), waveform)


def test_32_channels(tmp_path: Path) -> None:
    path = tmp_path / "many.wav"
    waveform = sound(0.1, 8_000, 32)
    soundfile.write(path, waveform.T, 8_000, "FLOAT")
    np.testing.assert_array_equal(whole(path), waveform)


def test_reading_leaves_the_input_alone(tmp_path: Path) -> None:
    path, _ = make("m4a", tmp_path)
    path.chmod(0o444)
    before = (path.read_bytes(), os.stat(path).st_mtime_ns)
    whole(path)
    assert (path.read_bytes(), os.stat(path).st_mtime_ns) == before
    assert os.listdir(tmp_path) == [path.name]


def test_readers_in_several_threads(tmp_path: Path) -> None:
    paths = [make(kind, tmp_path)[0] for kind in ("m4a", "vorbis", "flac", "mp3")]
    expected = [whole(path) for path in paths]
    wrong: list[Path] = []

    def work(path: Path, waveform: np.ndarray) -> None:
        for _ in range(3):
            if not np.array_equal(whole(path), waveform):
                wrong.append(path)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(paths, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with AudioWriter(path, sample_rate=48_000, num_channels=2) as writer:
        for _ in range(60):
            writer.write(np.zeros((2, 48_000 * 10), np.float32))
    script = (
        "import resource, sys; from audiovae.audio import ResampledReader;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "r = ResampledReader(sys.argv[1], 44100); r.read(0, 44100); before = peak();"
        "[r.read(at, at + 441000) for at in range(0, r.num_samples, 4410000)];"
        "sys.stdout.write(str(peak() - before))"
    )
    grown = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, check=True, text=True
    ).stdout
    assert int(grown) < 40_000  # kB; the file's ten minutes would be 211 000


def test_import_leaves_ffmpeg_and_torch_unloaded() -> None:
    script = "import sys, audiovae.audio; sys.exit(bool({'av', 'torch', 'ray'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_gaps_in_a_wav_header_padding(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full((3, 1), 0.5), 8_000, "PCM_U8", format="WAV")
    path = tmp_path / "odd.wav"
    path.write_bytes(buffer.getvalue())
    assert probe_audio(path).num_samples == 3


def by_ffmpeg(path: Path) -> np.ndarray:
    """`[channel, sample]` in the order of a WAV."""
    with av.open(str(path)) as container:
        layout = container.streams.audio[0].layout
        packed = av.AudioResampler("flt", layout)
        frames = [*container.decode(audio=0), None]
        blocks = [block.to_ndarray() for frame in frames for block in packed.resample(frame)]
    return np.concatenate(blocks, axis=1).reshape(-1, layout.nb_channels).T


@pytest.mark.parametrize("codec", ["aac", "flac", "libopus"])
@pytest.mark.parametrize("layout", ["5.1", "7.1"])
def test_surround_through_ffmpeg(layout: str, codec: str, tmp_path: Path) -> None:
    """Eight planes of samples, which PyAV counts as nine."""
    path = tmp_path / "surround.mka"
    waveform = sound(0.5, 48_000, int(layout[0]) + 1)
    encode_av(path, waveform, 48_000, "matroska", codec, layout=layout)
    decoded = whole(path)
    np.testing.assert_array_equal(decoded, by_ffmpeg(path))
    if codec == "flac":
        np.testing.assert_allclose(decoded, waveform, rtol=0, atol=INTEGER_TOLERANCE)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_of_ogg_are_in_the_order_of_a_wav(
    channels: int, subtype: str, tmp_path: Path
) -> None:
    path = tmp_path / "surround.ogg"
    with soundfile.SoundFile(path, "w", 48_000, channels, subtype, format="OGG") as file:
        for piece in np.split(sound(0.5, 48_000, channels).T, 10):
            file.write(piece)
    expected = by_ffmpeg(path)
    got = whole(path)[:, : expected.shape[1]]
    np.testing.assert_allclose(got, expected[:, : got.shape[1]], rtol=0, atol=2e-3)


@pytest.mark.parametrize("channels", [3, 4, 5, 7, 8])
def test_written_ogg_keeps_its_channels_in_place(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "surround.ogg"
    waveform = sound(0.5, 44_100, channels)
    write_audio(path, waveform, 44_100)
    for decoded in (whole(path), by_ffmpeg(path)):
        error = np.sqrt(np.mean((decoded - waveform) ** 2, axis=1))
        assert (error < 0.1 * np.sqrt(np.mean(waveform**2, axis=1))).all()
