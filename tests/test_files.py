"""Clips and single files: compress, decompress, ranges, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiovae import rate
from audiovae.audio import Clip, read_audio, write_audio
from audiovae.checkpoint import Model, load_model
from audiovae.codec import AvaeReader
from audiovae.errors import BitstreamError, ConfigError, ModelMismatchError
from audiovae.files import compress, decode_file, decompress, process_file, resynthesize
from audiovae.transform import COMPRESS, RESYNTHESIZE, TransformSettings
from tests.small_models import load_tiny_model

EXAMPLES = Path(__file__).parent.parent / "examples"
CHUNK_STEP_SECONDS = 992 * 512 / 44_100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clip() -> Clip:
    time = np.arange(round(2.3 * CHUNK_STEP_SECONDS * 22_050)) / 22_050
    left = 0.1 * np.sin(2 * np.pi * 220 * time) * np.exp(-time % 1)
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(time))
    return Clip(np.stack([left, noise]).astype(np.float32), 22_050, 24)


@pytest.fixture(scope="module")
def data(model: Model, clip: Clip) -> bytes:
    return compress(clip, model, quality=4)


def test_a_clip_comes_back_with_its_facts(model: Model, clip: Clip, data: bytes) -> None:
    decoded = decompress(data, model)
    assert decoded.waveform.shape == clip.waveform.shape
    assert (decoded.sample_rate, decoded.bit_depth) == (22_050, 24)
    assert compress(clip, model, quality=4) == data


def test_decompressing_is_resynthesising(model: Model, clip: Clip, data: bytes) -> None:
    np.testing.assert_array_equal(
        decompress(data, model).waveform, resynthesize(clip, model, quality=4).waveform
    )


def test_polish_changes_the_sound_and_nothing_else(
    tmp_path: Path, model: Model, clip: Clip, data: bytes
) -> None:
    plain = decompress(data, model, polish_steps=0).waveform
    np.testing.assert_array_equal(
        plain, resynthesize(clip, model, quality=4, polish_steps=0).waveform
    )
    assert not np.array_equal(plain, decompress(data, model).waveform)
    write_audio(tmp_path / "in.wav", clip)
    for steps in (0, 3):
        outputs = {name: tmp_path / f"{steps}.{name}" for name in (COMPRESS, RESYNTHESIZE)}
        settings = TransformSettings(
            (COMPRESS, RESYNTHESIZE), quality=4, format="wav", polish_steps=steps
        )
        process_file(tmp_path / "in.wav", outputs, model, settings)
        decoded = tmp_path / f"{steps}.wav"
        decode_file(outputs[COMPRESS], decoded, model, polish_steps=steps)
        assert decoded.read_bytes() == outputs[RESYNTHESIZE].read_bytes()
    assert (tmp_path / "0.compress").read_bytes() == (tmp_path / "3.compress").read_bytes()
    assert (tmp_path / "0.wav").read_bytes() != (tmp_path / "3.wav").read_bytes()


@pytest.mark.parametrize("start", [0.0, 5.0, 11.4, 25.0])
def test_a_range_is_the_slice_of_the_whole(
    model: Model, data: bytes, clip: Clip, start: float
) -> None:
    whole = decompress(data, model).waveform
    part = decompress(data, model, start_seconds=start, duration_seconds=0.7).waveform
    first = round(start * 22_050)
    np.testing.assert_array_equal(part, whole[:, first : first + round(0.7 * 22_050)])


def test_a_range_outside_the_file_is_refused(model: Model, data: bytes) -> None:
    with pytest.raises(ConfigError, match="expected a time range within"):
        decompress(data, model, start_seconds=1_000.0)


def test_a_file_is_the_clip(tmp_path: Path, model: Model, clip: Clip, data: bytes) -> None:
    write_audio(tmp_path / "in.wav", clip)
    outputs = {COMPRESS: tmp_path / "out.avae"}
    report = process_file(
        tmp_path / "in.wav", outputs, model, TransformSettings((COMPRESS,), quality=4)
    )
    got = (tmp_path / "out.avae").read_bytes()
    assert report.kbps == pytest.approx(len(got) * 8 / 1000 / clip.duration_seconds)
    with AvaeReader(got) as reader, AvaeReader(data) as expected:
        assert reader.header.num_samples == expected.header.num_samples
    decode_file(tmp_path / "out.avae", tmp_path / "out.flac", model)
    decoded = read_audio(tmp_path / "out.flac")
    assert decoded.waveform.shape == clip.waveform.shape
    assert decoded.bit_depth == 24


def test_another_model_is_refused(tmp_path: Path, data: bytes) -> None:
    other = load_tiny_model(tmp_path, seed=3)
    with pytest.raises(ModelMismatchError, match=f"got .*{other.id}"):
        decompress(data, other)


def test_damage_is_refused_and_salvage_bridges_it(
    tmp_path: Path, model: Model, data: bytes, clip: Clip
) -> None:
    with AvaeReader(data) as reader:
        middle = reader.entries[2]  # chunk 1 of channel 0
    broken = bytearray(data)
    broken[middle.offset + middle.num_bytes // 2] ^= 0x10
    path = tmp_path / "broken.avae"
    path.write_bytes(broken)
    with pytest.raises(BitstreamError, match="chunk 1 of channel 0"):
        decode_file(path, tmp_path / "out.wav", model)
    assert not (tmp_path / "out.wav").exists()
    report = decode_file(path, tmp_path / "out.wav", model, salvage=True)
    assert len(report.lost_seconds) == 1
    lost_from, lost_to = report.lost_seconds[0]
    assert lost_from == pytest.approx(CHUNK_STEP_SECONDS, abs=0.01)
    salvaged = read_audio(tmp_path / "out.wav").waveform
    assert salvaged.shape == clip.waveform.shape
    whole = decompress(data, model).waveform
    before = round((lost_from - 1) * 22_050)
    after = round((lost_to + 1) * 22_050)
    step_of_24_bits = 2.0**-23
    for kept in (np.s_[:, :before], np.s_[:, after:], np.s_[1:, :]):
        np.testing.assert_allclose(
            salvaged[kept], np.clip(whole, -1, 1)[kept], rtol=0, atol=step_of_24_bits
        )


@pytest.mark.parametrize("kbps", [0.5, 1.0])
def test_an_asked_rate_is_met_or_said_to_be_out_of_reach(
    tmp_path: Path, model: Model, clip: Clip, kbps: float
) -> None:
    write_audio(tmp_path / "in.wav", clip)
    settings = TransformSettings((COMPRESS,), kbps=kbps)
    report = process_file(tmp_path / "in.wav", {COMPRESS: tmp_path / "out.avae"}, model, settings)
    assert report.kbps is not None
    met = abs(report.kbps / kbps - 1) <= 0.05
    assert met != bool(report.note)


@pytest.mark.parametrize("limit", [800, 1_500, 3_000])
def test_a_limit_in_bytes_holds(limit: int) -> None:
    shipped = load_model("base", vocoder=None)  # an untrained model's rate hardly moves
    violin = read_audio(EXAMPLES / "violin_phrase.flac")
    assert 0.9 * limit <= len(compress(violin, shipped, max_bytes=limit)) <= limit


@pytest.mark.slow
def test_a_limit_in_bytes_holds_where_channels_share_sounds_unevenly() -> None:
    """For twelve seconds three of four channels play the same, and the last is silent."""
    shipped = load_model("base", vocoder=None)
    violin = np.tile(read_audio(EXAMPLES / "violin_phrase.flac").waveform[0], 4)
    split, stop = 12 * 44_100, 14 * 44_100
    four = np.stack([violin[:stop]] * 4)
    four[2, split:] = np.roll(violin, 9_000)[split:stop]
    four[3, :split] = 0
    four[3, split:] = np.roll(violin, 30_000)[split:stop]
    for limit in (4_000, 9_000):
        size = len(compress(Clip(four, 44_100), shipped, max_bytes=limit))
        assert 0.9 * limit <= size <= limit


@pytest.mark.slow
def test_a_limit_in_bytes_holds_where_only_some_chunks_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The chunks that are looked at, every second one, are the quiet ones."""
    monkeypatch.setattr(rate, "_MAX_SAMPLED_CHUNKS", 2)
    shipped = load_model("base", vocoder=None)
    violin = np.tile(read_audio(EXAMPLES / "violin_phrase.flac").waveform[0], 12)
    clip = Clip(violin[None, : round(3.9 * CHUNK_STEP_SECONDS * 44_100)].copy(), 44_100)
    for chunk in (0, 2):
        start, stop = (round((chunk + at) * CHUNK_STEP_SECONDS * 44_100) for at in (0, 1))
        clip.waveform[:, start:stop] *= 0.1
    for limit in (4_500, 9_000):
        assert 0.8 * limit <= len(compress(clip, shipped, max_bytes=limit)) <= limit


def test_the_size_that_is_told_is_that_of_the_file(tmp_path: Path) -> None:
    shipped = load_model("base", vocoder=None)
    clip = read_audio(EXAMPLES / "crow.mp3")
    smallest = len(compress(clip, shipped, max_bytes=1))
    assert len(compress(clip, shipped, max_bytes=smallest)) == smallest
    write_audio(tmp_path / "in.wav", clip)
    settings = TransformSettings((COMPRESS,), max_bytes=1)
    report = process_file(tmp_path / "in.wav", {COMPRESS: tmp_path / "o.avae"}, shipped, settings)
    size = (tmp_path / "o.avae").stat().st_size
    assert report.note == f"asked for 1 bytes, the smallest is {size}"


@pytest.mark.parametrize("wish", [{"kbps": 0.0}, {"kbps": float("nan")}, {"max_bytes": 0}])
def test_a_size_that_cannot_be_is_refused(wish: dict[str, Any], model: Model, clip: Clip) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        compress(clip, model, **wish)


@pytest.mark.parametrize("kbps", [0.8, 1.5, 3.0])
def test_a_rate_is_met_within_five_percent(kbps: float) -> None:
    shipped = load_model("base", vocoder=None)
    names = ("violin_phrase.flac", "flute_phrase.flac", "trumpet_phrase.flac")
    phrases = [read_audio(EXAMPLES / name).waveform for name in names]
    clip = Clip(np.concatenate(phrases, axis=1), 44_100)
    size = len(compress(clip, shipped, kbps=kbps))
    assert size * 8 / 1000 / clip.duration_seconds == pytest.approx(kbps, rel=0.05)


def test_a_compressed_file_is_not_compressed_again(
    tmp_path: Path, model: Model, data: bytes
) -> None:
    (tmp_path / "in.avae").write_bytes(data)
    settings = TransformSettings((COMPRESS, RESYNTHESIZE))
    outputs = {COMPRESS: tmp_path / "again.avae"}
    with pytest.raises(BitstreamError, match="got a compressed file"):
        process_file(tmp_path / "in.avae", outputs, model, settings)
