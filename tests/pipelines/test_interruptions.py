"""Whatever ends a run, the next one ends up where an uninterrupted one does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines.fakes import (
    AT_GATE_NAME,
    GATE_NAME,
    all_contents,
    contents,
    published,
    write_tone,
)

ROOT = Path(__file__).resolve().parents[2]
NUM_FILES = 8
PATIENCE_SECONDS = 120.0
END_SECONDS = 60.0
SIGNAL_SECONDS = 0.7  # more than two polls of the driver
ALONE_IN_ITS_PACK_SECONDS = 13.0


def start(folder: Path, output: Path, workers: int = 2) -> subprocess.Popen[str]:
    """The command with the fake model, as a process."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.pipelines.fakes", str(folder)),
            *("--output-dir", str(output), "--workers", str(workers)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_outputs(output: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(published(output)) < count:
        assert time.monotonic() < deadline, "no outputs appeared"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted") / "in"
    for index in range(NUM_FILES):
        write_tone(folder / f"slow{index}.wav", ALONE_IN_ITS_PACK_SECONDS, hz=200 + index)
    write_tone(folder / "long.wav", 21)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> Path:
    output = folder.parent / "whole"
    with start(folder, output) as run:
        assert run.wait(PATIENCE_SECONDS) == 0
    return output


def assert_same_end(output: Path, uninterrupted: Path) -> None:
    assert all_contents(output) == all_contents(uninterrupted)
    manifest = (output / "manifest.jsonl").read_bytes()
    assert manifest == (uninterrupted / "manifest.jsonl").read_bytes()
    names = {path.name for path in output.iterdir()}
    assert names == {path.name for path in uninterrupted.iterdir()}


@pytest.mark.parametrize("outputs_before", [0, 3, NUM_FILES])
def test_kill_9_and_rerun(
    folder: Path, uninterrupted: Path, tmp_path: Path, outputs_before: int
) -> None:
    output = tmp_path / "out"
    with start(folder, output) as run:
        wait_for_outputs(output, outputs_before)
        run.kill()
    with start(folder, output) as rerun:
        assert rerun.wait(PATIENCE_SECONDS) == 0
    assert_same_end(output, uninterrupted)


def test_many_kills_still_get_there(folder: Path, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for outputs_before in (1, 3, 5):
        with start(folder, output) as run:
            wait_for_outputs(output, outputs_before)
            run.kill()
    with start(folder, output) as rerun:
        assert rerun.wait(PATIENCE_SECONDS) == 0
    assert_same_end(output, uninterrupted)


def wait_at_gate(gated: Path, output: Path) -> None:
    """Until the first result is in the manifest, and a unit has come to the gate."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    manifest, at_gate = output / "manifest.jsonl", gated / AT_GATE_NAME
    while not (
        manifest.exists() and b'"status": "ok"' in manifest.read_bytes() and at_gate.exists()
    ):
        assert time.monotonic() < deadline, "no row appeared, or nothing came to the gate"
        time.sleep(0.01)


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    """One file that is done at once, then three that wait for a gate to open."""
    folder = tmp_path / "in"
    write_tone(folder / "a.wav", ALONE_IN_ITS_PACK_SECONDS)
    for index in range(3):
        write_tone(folder / f"gated{index}.wav", ALONE_IN_ITS_PACK_SECONDS, hz=300 + index)
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_units_finish_and_a_rerun_continues(
    gated: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out"
    with start(gated, output, workers=1) as run:
        wait_at_gate(gated, output)
        run.send_signal(number)
        time.sleep(SIGNAL_SECONDS)
        assert run.poll() is None  # a unit is in flight
        (gated / GATE_NAME).touch()
        written, complaints = run.communicate(timeout=END_SECONDS)
    assert run.returncode == 130
    assert "1 unit in flight may still finish" in complaints
    assert complaints.splitlines()[-1] == (
        "error: stopped with 2 files to do; run the same command again to continue"
    )
    assert "Traceback" not in complaints + written
    assert set(contents(output)) == {"a.wav.resynth.wav", "gated0.wav.resynth.wav"}
    with start(gated, output) as rerun:
        said, _ = rerun.communicate(timeout=PATIENCE_SECONDS)
    assert rerun.returncode == 0
    assert "done: 2 files" in said  # what was finished stays
    with start(gated, tmp_path / "whole") as whole:
        assert whole.wait(PATIENCE_SECONDS) == 0
    assert_same_end(output, tmp_path / "whole")


def test_a_second_signal_drops_a_unit_that_does_not_end(gated: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with start(gated, output, workers=1) as run:
        wait_at_gate(gated, output)
        run.send_signal(signal.SIGINT)
        time.sleep(SIGNAL_SECONDS)
        assert run.poll() is None
        deadline = time.monotonic() + END_SECONDS
        while run.poll() is None and time.monotonic() < deadline:
            run.send_signal(signal.SIGINT)  # again: two that come close together are one
            time.sleep(SIGNAL_SECONDS)
        _, complaints = run.communicate(timeout=END_SECONDS)
    assert run.returncode == 130
    assert "stopped with 3 files to do" in complaints


def test_two_runs_on_one_output(gated: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with start(gated, output, workers=1) as first:
        wait_at_gate(gated, output)
        with start(gated, output) as second:
            _, complaints = second.communicate(timeout=PATIENCE_SECONDS)
        assert first.poll() is None
        (gated / GATE_NAME).touch()
        assert first.wait(PATIENCE_SECONDS) == 0
    assert second.returncode == 1
    assert f"process {first.pid} on " in complaints
    assert len(contents(output)) == 4
