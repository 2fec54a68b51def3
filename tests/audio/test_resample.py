from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovae.audio import (
    AudioReader,
    ResampledReader,
    StreamResampler,
    read_audio,
    resample,
    write_audio,
)
from audiovae.errors import ConfigError, ShapeError
from tests.audio.test_files import make, sound

SOXR_TOLERANCE = 1e-6
ALIAS_DB = -100.0
RATIOS = [(44_100, 48_000), (48_000, 44_100), (8_000, 44_100), (96_000, 44_100), (44_100, 16_000)]


@pytest.mark.parametrize(("from_rate", "to_rate"), RATIOS)
def test_equals_soxr_on_the_whole(from_rate: int, to_rate: int) -> None:
    waveform = sound(7.3, from_rate, 2)
    expected = soxr.resample(waveform.T, from_rate, to_rate, "HQ").T
    got = resample(waveform, from_rate, to_rate)
    assert got.shape[1] == -(-waveform.shape[1] * to_rate // from_rate)
    num = min(got.shape[1], expected.shape[1])
    np.testing.assert_allclose(got[:, :num], expected[:, :num], rtol=0, atol=SOXR_TOLERANCE)


@pytest.mark.parametrize(("from_rate", "to_rate"), [*RATIOS, (47_999, 44_100)])
def test_stays_on_the_true_sine(from_rate: int, to_rate: int) -> None:
    """No drift, no wrong phase at block borders, also at odd ratios."""
    seconds, hz = 7, 997.0
    t = np.arange(seconds * from_rate) / from_rate
    got = resample(np.sin(2 * np.pi * hz * t)[None].astype(np.float32), from_rate, to_rate)[0]
    expected = np.sin(2 * np.pi * hz * np.arange(len(got)) / to_rate)
    inner = slice(to_rate // 4, -to_rate // 4)
    np.testing.assert_allclose(got[inner], expected[inner], rtol=0, atol=2e-5)


def test_no_aliases() -> None:
    t = np.arange(3 * 96_000) / 96_000
    above = np.sin(2 * np.pi * 30_000 * t)[None].astype(np.float32)
    got = resample(above, 96_000, 44_100)[0, 8_000:-8_000]
    assert 20 * np.log10(np.abs(got).max()) < ALIAS_DB


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("resample") / "a.wav"
    write_audio(path, sound(9.7, 48_000, 2), 48_000, bit_depth=24)
    whole = resample(read_audio(path).waveform, 48_000, 44_100)
    return path, whole


@settings(max_examples=40, deadline=None)
@given(ranges=st.lists(st.tuples(st.integers(-900, 440_000), st.integers(0, 60_000)), max_size=4))
def test_any_ranges_equal_the_whole(
    clip: tuple[Path, np.ndarray], ranges: list[tuple[int, int]]
) -> None:
    path, whole = clip
    padded = np.pad(whole, ((0, 0), (1_000, 600_000)))
    with ResampledReader(path, 44_100) as reader:
        assert reader.num_samples == whole.shape[1]
        for start, length in ranges:
            got = reader.read(start, start + length)
            assert got.tobytes() == padded[:, 1_000 + start : 1_000 + start + length].tobytes()


@pytest.mark.parametrize("kind", ["mp3", "m4a", "vorbis", "opus", "wav_gsm"])
def test_files_of_all_readers(kind: str, tmp_path: Path) -> None:
    path, _ = make(kind, tmp_path, seconds=5)
    whole = read_audio(path, sample_rate=32_000).waveform
    with AudioReader(path) as source:
        reader = ResampledReader(source, 32_000)
        assert reader.info == source.info
        got = [reader.read(at, at + 10_000) for at in range(0, reader.num_samples, 10_000)]
        reader.close()
        assert source.read(0, 1).shape[1] == 1  # the caller's reader stays open
    joined = np.concatenate(got, axis=1)
    np.testing.assert_array_equal(joined[:, : whole.shape[1]], whole)
    assert not joined[:, whole.shape[1] :].any()


def test_same_rate_passes_through(clip: tuple[Path, np.ndarray]) -> None:
    path, _ = clip
    expected = read_audio(path).waveform
    with ResampledReader(path, 48_000) as reader:
        np.testing.assert_array_equal(reader.read(0, reader.num_samples), expected)
        assert not reader.read(reader.num_samples, reader.num_samples + 5).any()
    np.testing.assert_array_equal(resample(expected, 48_000, 48_000), expected)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 150_000), min_size=1, max_size=5))
def test_stream_equals_the_whole_however_it_is_cut(sizes: list[int]) -> None:
    waveform = sound(4, 44_100, 2, seed=1)
    stream = StreamResampler(44_100, 48_000, 2)
    parts = [
        stream.push(waveform[:, at : at + size])
        for at, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)
    ]
    given_samples = min(sum(sizes), waveform.shape[1])
    joined = np.concatenate([*parts, stream.flush()], axis=1)
    np.testing.assert_array_equal(joined, resample(waveform[:, :given_samples], 44_100, 48_000))


def test_short_and_empty() -> None:
    assert resample(np.ones((1, 1), np.float32), 48_000, 44_100).shape == (1, 1)
    assert resample(np.ones((2, 0), np.float32), 48_000, 44_100).shape == (2, 0)
    assert StreamResampler(48_000, 44_100, 2).flush().shape == (2, 0)
    same = StreamResampler(48_000, 48_000, 1)
    assert same.push(np.ones((1, 3), np.float32)).shape == (1, 3)
    assert same.flush().shape == (1, 0)


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="add the channel axis"):
        resample(np.zeros(5, np.float32), 48_000, 44_100)
    with pytest.raises(ShapeError, match="push"):
        StreamResampler(48_000, 44_100, 2).push(np.zeros((1, 5), np.float32))
    path, _ = make("wav_16", tmp_path)
    with pytest.raises(ConfigError, match="sample rate"):
        ResampledReader(path, 10)
