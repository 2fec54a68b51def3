"""Rounds of faults: `python -m tests.chaos.rounds [ROUNDS] [SEED]`.

Every round runs a batch on Ray, on this machine alone or on a cluster of three nodes that are
separate processes, and does to it, at a random time, what happens to batches: something is
killed, or somebody presses Ctrl-C. It is then run again until it is done, and must have left what
an undisturbed run of the local runner leaves: the same outputs, the same manifest, no process.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.pipelines.fakes import all_contents, rows, write_tone
from tests.pipelines.processes import ACTOR, Command, kill
from tests.pipelines.ray_nodes import RayNodes

FAKES = "tests.pipelines.fakes"
BUSY = f"{ACTOR}.perform"
GONE_SECONDS = 30.0
WORK_SECONDS = 6.0
AT_WORK = 0.7
CORES = (1, 1, 1)
MOST_RUNS = 4
MOST_FILES_IN_FLIGHT = 64 * sum(CORES)


@dataclass
class Scene:
    """What a fault can be done to."""

    command: Command
    nodes: RayNodes | None
    chance: random.Random

    def actors(self, name: str = ACTOR) -> list[int]:
        return (self.nodes or self.command).actors(name)


def kill_driver(scene: Scene) -> None:
    scene.command.process.kill()


def kill_busy(scene: Scene) -> None:
    kill(scene.actors(BUSY)[:1])


def kill_idle(scene: Scene) -> None:
    kill(sorted(set(scene.actors()) - set(scene.actors(BUSY)))[:1])


def kill_node(scene: Scene) -> None:
    """Kill the raylet of a node; a new one joins."""
    if scene.nodes is None:  # alone, it is the raylet of the driver's own Ray
        kill(pid for pid, line in scene.command.family().items() if "raylet/raylet" in line)
        return
    scene.nodes.kill(scene.chance.randrange(len(scene.nodes.nodes)))
    scene.nodes.add(1)


def interrupt(scene: Scene) -> None:
    os.killpg(scene.command.process.pid, signal.SIGINT)


def terminate(scene: Scene) -> None:
    scene.command.process.terminate()


def intrude(scene: Scene) -> None:
    """A second run on the same output is turned away."""
    output = Path(scene.command.words[scene.command.words.index("--output-dir") + 1])
    scene.command.wait_for((output / "manifest.jsonl").exists, "the first run")
    status, _, err = Command(*scene.command.words).end()
    assert scene.command.process.poll() is not None or status == 1, err


FAULTS: tuple[Callable[[Scene], None], ...] = (
    kill_driver,
    kill_busy,
    kill_idle,
    kill_node,
    interrupt,
    terminate,
    intrude,
)


def write_inputs(folder: Path) -> None:
    for index in range(24):
        write_tone(folder / f"slow{index:02d}.wav", 13.0, hz=200 + index)
    for index in range(150):
        write_tone(folder / f"tiny{index:03d}.wav", 0.1, hz=300 + index)
    for name in ("bad0", "bad1"):
        write_tone(folder / f"{name}.wav")
    for index in range(2):
        write_tone(folder / f"long{index}.wav", 21.0 + index)


def play(
    folder: Path, expected: Path, output: Path, chance: random.Random, nodes: RayNodes | None
) -> str:
    """One round; returns its story.

    Raises:
        AssertionError: If anything is not as it should be.
    """
    shutil.rmtree(output, ignore_errors=True)
    fault = chance.choice(FAULTS)
    story = f"{'cluster' if nodes else 'alone':8s}{fault.__name__:12s}"
    for run in range(MOST_RUNS):
        command = Command(
            *(FAKES, folder, "--output-dir", output, "--executor", "ray", "--workers", "3"),
            environment=nodes.environment if nodes else None,
        )
        if run == 0:
            scene = Scene(command, nodes, chance)
            wait_for_the_moment(scene)
            fault(scene)
        status, out, err = command.end()
        story += f" status {status} "
        assert "Traceback" not in out + err, story + err
        assert command.leaves_nothing_within(GONE_SECONDS), f"{story}: {command.family()}"
        if status == 3:
            break
        assert run == 0, story + err
        assert status in {130, -signal.SIGKILL, -signal.SIGTERM, 1}, story + err
    compare(output, expected)
    redone = books(output) - len(rows(expected))
    assert 0 <= redone <= MOST_FILES_IN_FLIGHT, redone
    return f"{story} {redone} files redone"


def wait_for_the_moment(scene: Scene) -> None:
    """A random moment: of the start, or of the work."""
    if scene.chance.random() < AT_WORK:
        scene.command.wait_for(lambda: scene.actors(BUSY), "work")
    time.sleep(scene.chance.uniform(0.0, WORK_SECONDS))


def compare(output: Path, expected: Path) -> None:
    """Nothing is lost, torn, or blamed on an innocent file."""
    assert rows(output) == rows(expected)
    assert all_contents(output) == all_contents(expected)
    assert {path.name for path in output.iterdir()} == {path.name for path in expected.iterdir()}


def books(output: Path) -> int:
    """Results that were booked, over all runs on an output."""
    log = (output / "batch.log").read_text()
    return len(re.findall(r"pipelines\.runner\.driver path=.* status=", log))


def main(num_rounds: int, seed: int) -> int:
    failures = 0
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos")))
        folder, expected = home / "in", home / "expected"
        write_inputs(folder)
        status, _, err = Command(
            *(FAKES, folder, "--output-dir", expected, "--executor", "local")
        ).end()
        assert status == 3, err
        nodes = stack.enter_context(RayNodes(CORES))
        for number in range(num_rounds):
            chance = random.Random(f"{seed} {number}")
            place = nodes if number % 2 else None
            nodes.mend()
            try:
                story = play(folder, expected, home / "out", chance, place)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures += 1
                story = f"FAILED {error}"
            sys.stdout.write(f"round {number + 1:2d}  {story}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{num_rounds - failures} of {num_rounds} rounds left nothing to wish for\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in [*sys.argv[1:], "20", "0"][:2])))
