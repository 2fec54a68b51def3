"""Measurements depend on the file alone: not on its pack, its spans or the worker."""

from pathlib import Path

import numpy as np
import pytest

from audiovae.audio import Clip, write_audio
from audiovae.checkpoint import Model
from audiovae.errors import AudioVAEError, ConfigError
from audiovae.measuring import Measurer, build_measurement, load_arrays, save_arrays
from tests.small_models import load_tiny_model
from tests.tones import SAMPLE_RATE, tones

NAMES = ("embedding", "profile")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_tiny_model(tmp_path_factory.mktemp("models"))


def write(path: Path, seconds: float, seed: int = 0) -> Path:
    write_audio(path, Clip(tones(int(seconds * SAMPLE_RATE), seed)[None], SAMPLE_RATE))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_measured_alike_in_any_company(name: str, model: Model, tmp_path: Path) -> None:
    measurer = Measurer(model, build_measurement(name, model))
    sources = [write(tmp_path / f"{i}.wav", 0.3 + 0.4 * i, i) for i in range(4)]
    jobs = [(path, {name: path.with_suffix(".npz")}) for path in sources]
    reports = measurer.process_files(jobs)
    assert not any(isinstance(report, AudioVAEError) for report in reports)
    for source in sources:
        alone = measurer.measure_file(source)
        together = load_arrays(source.with_suffix(".npz"))
        assert alone.keys() == together.keys()
        for array in alone:
            np.testing.assert_array_equal(alone[array], together[array])


@pytest.mark.parametrize("name", NAMES)
def test_parts_make_the_whole(name: str, model: Model, tmp_path: Path) -> None:
    measurer = Measurer(model, build_measurement(name, model))
    source = write(tmp_path / "long.wav", 25)
    parts, reports = [], []
    for first in range(3):
        parts.append(tmp_path / f"part{first}")
        reports.append(measurer.process_span(source, parts[-1], first, first + 1))
    report = measurer.assemble(source, parts, reports, {name: tmp_path / "whole.npz"})
    assert report.seconds == pytest.approx(25)
    whole, at_once = load_arrays(tmp_path / "whole.npz"), measurer.measure_file(source)
    for array in at_once:
        np.testing.assert_allclose(whole[array], at_once[array], rtol=1e-6, atol=1e-9)


def test_a_bad_file_does_not_spoil_the_others(model: Model, tmp_path: Path) -> None:
    measurer = Measurer(model, build_measurement("embedding", model))
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF and nothing more")
    jobs = [(path, {"embedding": tmp_path / f"{path.stem}.npz"}) for path in
            (bad, write(tmp_path / "good.wav", 0.1))]  # fmt: skip
    results = measurer.process_files(jobs)
    assert isinstance(results[0], AudioVAEError)
    assert not isinstance(results[1], AudioVAEError)
    assert not (tmp_path / "bad.npz").exists()


def test_a_profile_covers_every_block(model: Model, tmp_path: Path) -> None:
    profile = Measurer(model, build_measurement("profile", model)).measure_file(
        write(tmp_path / "a.wav", 13)  # two chunks
    )
    frames = -(-13 * SAMPLE_RATE // 512)
    blocks = -(-frames // 32)
    views = ("errors", "rates", "features", "levels", "squares")
    assert {profile[name].shape[-1] for name in views} == {blocks}
    assert profile["cells"].shape == (2, 64, -(-frames // 8))


def test_levels_are_mean_and_range_of_a_block_however_short(model: Model, tmp_path: Path) -> None:
    """A tone that stops: the last block, of one cell, has a mean and no range."""
    frames = 5 * 32 + 8
    profile = Measurer(model, build_measurement("profile", model)).measure_file(
        write(tmp_path / "a.wav", frames * 512 / SAMPLE_RATE)
    )
    levels, cells = profile["levels"], profile["cells"][1].astype(np.float32)
    assert levels.shape == (128, 6)
    assert np.allclose(levels[:64, 0], cells[:, :4].mean(axis=1), atol=0.02)
    assert np.allclose(levels[64:, 0], np.ptp(cells[:, :4], axis=1), atol=0.02)
    assert np.allclose(levels[:64, 5], cells[:, 20], atol=0.02)
    assert np.abs(levels[64:, 5]).max() == 0


def test_a_click_is_where_it_is(model: Model, tmp_path: Path) -> None:
    wave = 0.05 * tones(5 * SAMPLE_RATE, 0)
    wave[3 * SAMPLE_RATE : 3 * SAMPLE_RATE + 200] += 0.5
    write_audio(tmp_path / "click.wav", Clip(wave[None], SAMPLE_RATE))
    measurer = Measurer(model, build_measurement("profile", model))
    level = measurer.measure_file(tmp_path / "click.wav")["cells"][1].max(axis=0)
    assert abs(level.argmax() * 8 * 512 / SAMPLE_RATE - 3) < 0.2


def test_an_embedding_does_not_change_with_repetition(model: Model, tmp_path: Path) -> None:
    """Statistics over time: the same sound twice as long is the same sound."""
    wave = tones(512 * 256, 3)  # a whole number of steps of every level
    measurer = Measurer(model, build_measurement("embedding", model))
    vectors = []
    for times in (1, 2):
        path = tmp_path / f"{times}.wav"
        write_audio(path, Clip(np.tile(wave, times)[None], SAMPLE_RATE))
        vectors.append(measurer.measure_file(path)["embedding"])
    other = measurer.measure_file(write(tmp_path / "other.wav", 3, seed=8))["embedding"]
    apart = np.linalg.norm(vectors[0] - vectors[1])
    assert apart < 0.5 * np.linalg.norm(vectors[0] - other)


@pytest.mark.parametrize("keep", [0, 1, 100, 250])
def test_damaged_arrays_are_one_line_of_ours(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    save_arrays(path, {"x": np.arange(50)})
    whole = path.read_bytes()
    np.save(tmp_path / "b.npy", np.arange(9))
    rotted = whole[:keep] + b"?" + whole[keep + 1 :]
    for data in (whole[:keep], b"junk" * keep, rotted, (tmp_path / "b.npy").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="got a damaged one; remove it") as caught:
            load_arrays(path)
        assert "pickle" not in str(caught.value)


def test_an_unknown_measurement_is_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="embedding or profile"):
        build_measurement("mood", model)
