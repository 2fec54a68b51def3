"""Hundreds of files, good and bad, through a tiny model: on Ray as in this process."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from audiovae.audio import Clip, write_audio
from tests.pipelines.fakes import all_contents, rows
from tests.pipelines.processes import Command
from tests.small_models import write_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]

GOOD, BAD_OF_A_KIND = 300, 4
GONE_SECONDS = 30.0
RATES = (8_000, 22_050, 44_100)


def write_inputs(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for index in range(GOOD):
        rate, channels = RATES[index % 3], 1 + index % 2
        noise = 0.1 * generator.standard_normal((channels, rate // (4 + index % 7)))
        suffix = ("wav", "flac")[index % 4 == 0]
        path = folder / f"{index % 10}" / f"{index:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, Clip(noise.astype(np.float32), rate))
    whole = (folder / "1" / "001.wav").read_bytes()
    for index in range(BAD_OF_A_KIND):
        (folder / f"noise{index}.wav").write_bytes(generator.bytes(4_000))
        (folder / f"torn{index}.wav").write_bytes(whole[: len(whole) // 2])
        (folder / f"nothing{index}.flac").write_bytes(b"")
        (folder / f"text{index}.mp3").write_text("not audio " * 100)
        with wave.open(str(folder / f"empty{index}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8_000)


def test_three_hundred_good_and_twenty_bad_files(tmp_path: Path) -> None:
    folder, models = tmp_path / "in", tmp_path / "models"
    models.mkdir()
    write_tiny_model(models)
    write_inputs(folder)
    for executor in ("local", "ray"):
        command = Command(
            *("tests.pipelines.tiny", models, folder, "--output-dir", tmp_path / executor),
            *("--executor", executor, "--workers", "2"),
        )
        status, out, err = command.end()
        assert status == 3, err
        assert "300 ok, 20 failed, 0 skipped" in out
        assert err.count("failed: ") == 20
        assert command.leaves_nothing_within(GONE_SECONDS)
    found = rows(tmp_path / "ray")
    assert len(found) == GOOD + 5 * BAD_OF_A_KIND
    assert all(row["reason"] for row in found if row["status"] == "error")
    assert (tmp_path / "ray" / "manifest.jsonl").read_bytes() == (
        tmp_path / "local" / "manifest.jsonl"
    ).read_bytes()
    outputs = all_contents(tmp_path / "ray")
    assert len(outputs) == 2 * GOOD
    assert outputs == all_contents(tmp_path / "local")
