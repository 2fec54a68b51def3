"""The Ray runner on this machine, through the command: same outputs, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.pipelines.fakes import GATE_NAME, PATIENCE, all_contents, published, rows, write_tone
from tests.pipelines.processes import Command, kill

pytestmark = pytest.mark.ray

FAKES = "tests.pipelines.fakes"
ALONE_IN_ITS_PACK_SECONDS = 13.0
GONE_SECONDS = 30.0
BUSY = "ray::UnitActor.perform"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for index in range(4):
        write_tone(folder / f"{index}.wav", ALONE_IN_ITS_PACK_SECONDS, hz=200 + index)
    for index in range(20):
        write_tone(folder / f"tiny{index:02d}.wav", 0.1, hz=300 + index)
    write_tone(folder / "long.wav", 21)
    return folder


def start(folder: Path, output: Path, *arguments: str, executor: str = "ray") -> Command:
    return Command(
        FAKES,
        *(folder, "--output-dir", output, "--executor", executor, "--workers", "2", *arguments),
    )


def finish(folder: Path, output: Path, executor: str = "local") -> None:
    """Run to the end, undisturbed."""
    status, _, err = start(folder, output, executor=executor).end()
    assert status == 0, err


def assert_undisturbed(command: Command, folder: Path, output: Path) -> None:
    """Nothing of it runs any more, and nobody can tell from what it left that it was disturbed."""
    assert command.leaves_nothing_within(GONE_SECONDS)
    expected = output.parent / "expected"
    finish(folder, expected)
    assert all_contents(output) == all_contents(expected)
    assert (output / "manifest.jsonl").read_bytes() == (expected / "manifest.jsonl").read_bytes()
    names = {path.name for path in output.iterdir()}
    assert names == {path.name for path in expected.iterdir()}


def test_what_kills_or_holds_workers_is_blamed_and_the_rest_is_as_the_local_runner_makes_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE, "5")
    output, expected = tmp_path / "out", tmp_path / "expected"
    for name in ("killer", "stuck", "bad"):
        write_tone(folder / f"{name}.wav")
    command = start(folder, output)
    status, out, err = command.end()
    assert status == 3
    assert "executor=ray because='asked for'" in err
    assert "Traceback" not in out + err
    assert command.leaves_nothing_within(GONE_SECONDS)
    blamed = [row for row in rows(output) if row["path"] in ("killer.wav", "stuck.wav")]
    assert [(row["error"], row["retry"]) for row in blamed] == [("WorkerDied", True)] * 2
    run = json.loads((output / "summary.json").read_text())["run"]
    assert (run["executor"], run["num_workers"], run["failed_files"]) == ("ray", 2, 3)
    assert run["dead_workers"] >= 6
    assert set(run["stage_seconds"]) == {"decode", "vocode"}
    log = (output / "batch.log").read_text()
    assert "logger=pipelines.runner.worker unit=" in log  # what actors log arrives
    for row in blamed:
        (folder / row["path"]).unlink()
    assert start(folder, expected, executor="local").end()[0] == 3
    assert all_contents(output) == all_contents(expected)
    assert [row for row in rows(output) if row not in blamed] == rows(expected)


def replaced(command: Command, victim: int) -> bool:
    actors = command.actors()
    return victim not in actors and len(actors) == 2


def test_busy_and_idle_actors_are_killed_and_nobody_is_blamed(folder: Path, tmp_path: Path) -> None:
    write_tone(folder / "gated.wav", ALONE_IN_ITS_PACK_SECONDS)
    output = tmp_path / "out"
    command = start(folder, output)
    command.wait_for(lambda: len(published(output)) >= 10, "outputs")
    command.wait_for(
        lambda: len(command.actors(BUSY)) == 1 and len(command.actors()) == 2, "one that waits"
    )
    (busy,) = command.actors(BUSY)  # it waits at the gate
    (idle,) = set(command.actors()) - {busy}
    for victim in (busy, idle):
        kill([victim])
        command.wait_for(partial(replaced, command, victim), "the next")
    (folder / GATE_NAME).touch()
    status, _, err = command.end()
    assert status == 0, err
    assert_undisturbed(command, folder, output)


@pytest.mark.parametrize("phase", ["starting", "working", "ending"])
def test_a_signal_in_every_phase(folder: Path, tmp_path: Path, phase: str) -> None:
    output = tmp_path / "out"
    for index in range(3 if phase == "working" else 0):  # one more than there are workers
        write_tone(folder / f"gated{index}.wav", ALONE_IN_ITS_PACK_SECONDS, hz=400 + index)
    command = start(folder, output)
    if phase == "starting":
        command.wait_for(lambda: len(command.family()) > 1, "the first process of Ray")
    elif phase == "working":
        command.wait_for(lambda: command.actors(BUSY), "work")
    else:
        command.wait_for(lambda: (output / "summary.json").exists(), "the end")
    with suppress(ProcessLookupError):  # it may have ended by now
        os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
    (folder / GATE_NAME).touch()
    status, out, err = command.end()
    assert status in ({130} if phase != "ending" else {0, 130}), err
    assert "Traceback" not in out + err
    finish(folder, output)
    assert_undisturbed(command, folder, output)


def test_the_driver_is_killed_and_its_workers_go_with_it(folder: Path, tmp_path: Path) -> None:
    write_tone(folder / "gated.wav", ALONE_IN_ITS_PACK_SECONDS)
    output = tmp_path / "out"
    command = start(folder, output)
    command.wait_for(lambda: published(output), "an output")
    command.process.kill()
    command.end()
    (folder / GATE_NAME).touch()
    finish(folder, output)
    assert_undisturbed(command, folder, output)


def test_a_full_disk_is_fatal_and_a_rerun_continues(folder: Path, tmp_path: Path) -> None:
    full = write_tone(folder / "zz-full.wav", ALONE_IN_ITS_PACK_SECONDS)
    command = start(folder, tmp_path / "out")
    status, _, err = command.end()
    assert status == 1
    assert err.splitlines()[-1].startswith("error: No space left on device")
    full.unlink()
    finish(folder, tmp_path / "out")
    assert_undisturbed(command, folder, tmp_path / "out")
