"""Whatever ends a run, the next one ends up where an uninterrupted one does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines.fakes import contents, write_tone

ROOT = Path(__file__).resolve().parents[2]
NUM_FILES = 8
PATIENCE_SECONDS = 30.0
END_SECONDS = 10.0
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
    while len(list(output.glob("*.resynth.wav"))) < count:
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
    assert contents(output) == contents(uninterrupted)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_units_finish_and_a_rerun_continues(
    folder: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out"
    with start(folder, output) as run:
        wait_for_outputs(output, 2)
        run.send_signal(number)
        written, complaints = run.communicate(timeout=END_SECONDS)
    assert run.returncode == 130
    assert "in flight may still finish" in complaints
    assert "run the same command again to continue" in complaints.splitlines()[-1]
    assert "Traceback" not in complaints + written
    finished = contents(output)
    assert 2 <= len(finished) < NUM_FILES
    with start(folder, output) as rerun:
        said, _ = rerun.communicate(timeout=PATIENCE_SECONDS)
    assert rerun.returncode == 0
    assert f"done: {NUM_FILES + 1 - len(finished)} files" in said  # what was finished stays
    assert_same_end(output, uninterrupted)


def test_a_second_signal_drops_a_unit_that_does_not_end(tmp_path: Path) -> None:
    write_tone(tmp_path / "in" / "a.wav", ALONE_IN_ITS_PACK_SECONDS)
    write_tone(tmp_path / "in" / "stuck.wav", ALONE_IN_ITS_PACK_SECONDS)
    output = tmp_path / "out"
    with start(tmp_path / "in", output) as run:
        wait_for_outputs(output, 1)
        run.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        _, complaints = run.communicate(timeout=END_SECONDS)
    assert run.returncode == 130
    assert "stopped with 1 files to do" in complaints


def test_two_runs_on_one_output(tmp_path: Path) -> None:
    write_tone(tmp_path / "in" / "a.wav", ALONE_IN_ITS_PACK_SECONDS)
    write_tone(tmp_path / "in" / "stuck.wav", ALONE_IN_ITS_PACK_SECONDS)
    output = tmp_path / "out"
    with start(tmp_path / "in", output) as first:
        wait_for_outputs(output, 1)
        before = (output / "manifest.jsonl").read_bytes()
        with start(tmp_path / "in", output) as second:
            _, complaints = second.communicate(timeout=PATIENCE_SECONDS)
        first.kill()
    assert second.returncode == 1
    assert f"process {first.pid} on " in complaints
    assert (output / "manifest.jsonl").read_bytes() == before
