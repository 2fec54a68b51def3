"""The whole command with a real, if tiny, model: same inputs, same bytes, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from audiovae.audio import Clip, probe_audio, write_audio
from tests.pipelines.fakes import all_contents, contents, published, rows
from tests.small_models import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
LONG_SECONDS = 100.0  # more than one span of 92 s
PATIENCE_SECONDS = 240.0
NUM_FILES = 9

pytestmark = pytest.mark.slow


def sound(seconds: float, rate: int, channels: int, seed: int) -> Clip:
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    glide = 0.3 * np.sin(2 * np.pi * (150 * times + 40 * times**1.5))
    noise = 0.01 * generator.standard_normal((channels, len(times)))
    return Clip((glide + noise).astype(np.float32), rate)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "in"
    (folder / "deep").mkdir(parents=True)
    write_audio(folder / "long.wav", sound(LONG_SECONDS, 8_000, 1, 0))
    for index, (rate, channels, suffix) in enumerate(
        [(44_100, 2, "wav"), (48_000, 1, "flac"), (22_050, 2, "ogg"), (16_000, 1, "wav")]
    ):
        write_audio(folder / f"{index}.{suffix}", sound(1.5 + index, rate, channels, index))
        write_audio(folder / f"deep/{index}.{suffix}", sound(0.2, rate, channels, 10 + index))
    return folder


def start(models: Path, folder: Path, output: Path, workers: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.pipelines.tiny", str(models), str(folder)),
            *("--output-dir", str(output), "--workers", str(workers)),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finish(models: Path, folder: Path, output: Path, workers: int = 2) -> None:
    with start(models, folder, output, workers) as run:
        assert run.wait(PATIENCE_SECONDS) == 0


@pytest.fixture(scope="module")
def uninterrupted(models: Path, folder: Path) -> Path:
    output = folder.parent / "whole"
    finish(models, folder, output, workers=1)
    return output


def test_outputs_have_rate_length_and_channels_of_their_source(
    folder: Path, uninterrupted: Path
) -> None:
    assert len(contents(uninterrupted)) == NUM_FILES
    for row in rows(uninterrupted):
        before = probe_audio(folder / row["path"])
        after = probe_audio(uninterrupted / f"{row['path']}.resynth.wav")
        assert (after.sample_rate, after.num_channels, after.num_samples) == (
            before.sample_rate,
            before.num_channels,
            before.num_samples,
        )
        assert row["estimated_kbps"] > 0
        assert row["log_mel_l1_db"] > 0


def test_report_has_a_picture_of_every_file(uninterrupted: Path) -> None:
    page = (uninterrupted / "report.html").read_text(encoding="utf-8")
    assert page.count("<img src=") == 2 * NUM_FILES


def test_kill_9_and_rerun_with_other_workers(
    models: Path, folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with start(models, folder, output, workers=2) as run:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not published(output):
            assert time.monotonic() < deadline, "no outputs appeared"
            time.sleep(0.005)
        run.kill()
    finish(models, folder, output, workers=3)
    assert all_contents(output) == all_contents(uninterrupted)
    assert (output / "manifest.jsonl").read_bytes() == (
        uninterrupted / "manifest.jsonl"
    ).read_bytes()


def test_bytes_do_not_depend_on_company(
    models: Path, folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    for path in ("1.flac", "deep/0.wav"):
        finish(models, folder / path, tmp_path / path)
        (alone,) = contents(tmp_path / path).values()
        assert alone == contents(uninterrupted)[f"{path}.resynth.wav"]
        (compressed,) = contents(tmp_path / path, "*.avae").values()
        assert compressed == all_contents(uninterrupted)[f"{path}.avae"]


def test_inputs_are_as_before(models: Path, folder: Path, tmp_path: Path) -> None:
    def snapshot() -> dict[str, tuple[bytes, int]]:
        return {
            os.fspath(path): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*.*")
        }

    before = snapshot()
    finish(models, folder / "deep", tmp_path / "out")
    assert snapshot() == before
