from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from audiovae.audio import AudioWriter, Clip, probe_audio, read_audio, sinks, write_audio
from audiovae.errors import AudioWriteError, NonFiniteAudioError, ShapeError
from tests.audio.test_files import LOSSY_TOLERANCE, sound


@pytest.mark.parametrize(
    ("suffix", "bit_depth", "encoding"),
    [
        (".wav", 8, "PCM_16"),
        (".wav", 16, "PCM_16"),
        (".wav", 24, "PCM_24"),
        (".WAV", 64, "PCM_24"),
        (".flac", 16, "PCM_16"),
        (".flac", 32, "PCM_24"),
        (".ogg", 16, "VORBIS"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_round_trip(
    suffix: str, bit_depth: int, encoding: str, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / ("a" + suffix)
    channels = 5 if (suffix, channels) == (".ogg", 6) else channels
    waveform = sound(1.1, 44_100, channels)
    write_audio(path, Clip(waveform, 44_100, bit_depth))
    info = probe_audio(path)
    assert (info.encoding, info.num_channels, info.sample_rate) == (encoding, channels, 44_100)
    assert info.num_samples == waveform.shape[1]
    tolerance = {"PCM_16": 2.0**-15, "PCM_24": 2.0**-23, "VORBIS": LOSSY_TOLERANCE}[encoding]
    np.testing.assert_allclose(read_audio(path).waveform, waveform, rtol=0, atol=tolerance)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("bits", [16, 24])
def test_integers_survive_exactly(suffix: str, bits: int, tmp_path: Path) -> None:
    path = tmp_path / ("a" + suffix)
    full = 2 ** (bits - 1)
    integers = np.random.default_rng(0).integers(-full, full, (2, 5_001))
    integers[:, :2] = [[-full, full - 1], [full - 1, -full]]
    waveform = (integers / full).astype(np.float32)
    write_audio(path, waveform, 48_000, bit_depth=bits)
    np.testing.assert_array_equal(read_audio(path).waveform, waveform)


def test_clips_to_full_scale(tmp_path: Path) -> None:
    path = tmp_path / "hot.wav"
    write_audio(path, np.array([[5.0, -5.0, 1.0]], np.float32), 8_000)
    np.testing.assert_array_equal(
        read_audio(path).waveform * 32_768, np.array([[32_767, -32_768, 32_767]])
    )


def test_wav_becomes_rf64_beyond_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "WAV_MAX_BYTES", 10_000)
    waveform = sound(1, 8_000, 3)
    path = tmp_path / "big.wav"
    with AudioWriter(path, sample_rate=8_000, num_channels=3, bit_depth=24) as writer:
        for at in range(0, 8_000, 999):
            writer.write(waveform[:, at : at + 999])
        assert writer.num_samples == 8_000
    assert path.read_bytes()[:4] == b"RF64"
    assert soundfile.info(path).format == "RF64"
    assert probe_audio(path).container == "rf64"
    np.testing.assert_allclose(read_audio(path).waveform, waveform, rtol=0, atol=2.0**-23)


def test_long_vorbis_in_one_block(tmp_path: Path) -> None:
    path = tmp_path / "long.ogg"
    write_audio(path, sound(65, 22_050, 1), 22_050)
    assert probe_audio(path).num_samples == 65 * 22_050


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_failure_leaves_nothing_and_the_old_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / ("a" + suffix)
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with AudioWriter(path, sample_rate=8_000, num_channels=1) as writer:
            writer.write(sound(1, 8_000, 1))
            assert path.read_bytes() == b"old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
    write_audio(path, sound(1, 8_000, 1), 8_000)
    assert probe_audio(path).num_samples == 8_000


def test_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.mkdir()
    with pytest.raises(AudioWriteError, match="a file that can be written"):
        write_audio(path, sound(1, 8_000, 1), 8_000)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sinks.WavSink, "write", full)
    with pytest.raises(AudioWriteError, match="No space left"):
        write_audio(tmp_path / "a.wav", sound(1, 8_000, 1), 8_000)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_file_that_finds_no_room_is_an_error_wherever_it_stops(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / ("a" + suffix)
    waveform = sound(1, 44_100, 1)
    write_audio(path, waveform, 44_100)
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 1_000, len(whole) // 2, len(whole) - 2_000, len(whole) - 1):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            with pytest.raises(AudioWriteError, match="File too large"):
                write_audio(path, waveform, 44_100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == whole
        assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_one_sound_makes_one_file(suffix: str, tmp_path: Path) -> None:
    waveform = sound(3, 44_100, 2)
    for name in ("a", "b"):
        write_audio(tmp_path / (name + suffix), waveform, 44_100)
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() == second.read_bytes()
    np.testing.assert_array_equal(
        read_audio(first).waveform, read_audio(second).waveform
    )  # whose pages are checked


@pytest.mark.parametrize(
    ("name", "rate", "channels", "remedy"),
    [
        ("a.flac", 768_000, 1, "write wav instead"),
        ("a.flac", 44_100, 9, "write wav instead"),
        ("a.flac", 88_201, 1, "multiple of 10 Hz"),
        ("a.ogg", 384_000, 1, "write wav instead"),
        ("a.ogg", 44_100, 6, "write wav or flac instead"),
        ("a.wav", 44_100, 33, "split"),
        ("a.wav", 500, 1, "resample"),
        ("a.mp3", 44_100, 1, "end it so"),
        ("missing/a.wav", 44_100, 1, "folder exists"),
        ("missing/a.flac", 44_100, 1, "folder exists"),
    ],
)
def test_refusals_say_what_to_do(
    name: str, rate: int, channels: int, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(AudioWriteError, match=remedy):
        AudioWriter(tmp_path / name, sample_rate=rate, num_channels=channels)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("a.wav", 768_000, 32),
        ("a.flac", 655_350, 8),
        ("a.flac", 1_000, 1),
        ("a.flac", 65_535, 1),
        ("a.flac", 88_210, 1),
        ("a.ogg", 192_000, 2),
        ("a.ogg", 1_000, 1),
        ("a.ogg", 44_100, 32),
    ],
)
def test_limits_hold_what_they_promise(name: str, rate: int, channels: int, tmp_path: Path) -> None:
    waveform = sound(0.2, rate, channels)
    write_audio(tmp_path / name, waveform, rate)
    clip = read_audio(tmp_path / name)
    assert clip.waveform.shape == waveform.shape
    assert clip.sample_rate == rate


@pytest.mark.parametrize(
    ("channels", "layout"), [(4, "quad"), (5, "5.0"), (6, "5.1"), (8, "7.1"), (9, "9 channels")]
)
def test_wav_names_the_speakers(channels: int, layout: str, tmp_path: Path) -> None:
    """As FLAC does; a player that has to guess puts the rear pair of a quad in the middle."""
    write_audio(tmp_path / "a.wav", sound(0.1, 48_000, channels), 48_000)
    with av.open(str(tmp_path / "a.wav")) as container:
        assert container.streams.audio[0].layout.name == layout


def test_format_overrules_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_audio(path, sound(1, 8_000, 1), 8_000, format="flac")
    assert probe_audio(path).container == "flac"


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(ShapeError, match="pass sample_rate"):
        write_audio(path, sound(1, 8_000, 1))
    with pytest.raises(ShapeError, match="channel axis"):
        write_audio(path, np.zeros(5, np.float32), 8_000)
    with pytest.raises(ShapeError, match=r"pass \[channel"):
        with AudioWriter(path, sample_rate=8_000, num_channels=2) as writer:
            writer.write(np.zeros((1, 5), np.float32))
    with pytest.raises(NonFiniteAudioError, match="NaN"):
        write_audio(path, np.full((1, 5), np.nan, np.float32), 8_000)
    with pytest.raises(ShapeError, match="full scale"):
        write_audio(path, np.ones((1, 5), np.int16), 8_000)
    with pytest.raises(ShapeError, match="of 8000 Hz, got 22050"):
        write_audio(path, Clip(sound(1, 8_000, 1), 8_000), 22_050)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("shape", "facts", "told"),
    [
        ((0, 5), (8_000, 16), "1 to 32 channels"),
        ((1, 0), (8_000, 16), "at least one sample"),
        ((4_410, 2), (44_100, 16), "transpose it"),
        ((1, 5), (44_100.0, 16), "whole sample rate"),
        ((1, 5), (44, 16), "whole sample rate"),
        ((1, 5), (8_000, 20), "bit depth"),
    ],
)
def test_a_clip_that_no_file_could_hold_is_refused_where_it_is_made(
    shape: tuple[int, int], facts: tuple[Any, int], told: str
) -> None:
    with pytest.raises(ShapeError, match=told):
        Clip(np.zeros(shape, np.float32), *facts)
