"""What the runners cost: throughput beside a bare loop, overhead a file, more nodes, reruns.

Speeds of one machine are compared within one run only. Where real work would only hide what is
measured, workers sleep or do nothing, and the line says so.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audiovae.audio import Clip, write_audio
from pipelines.runner.agenda import Agenda
from pipelines.runner.desk import LocalBooks
from pipelines.runner.driver import Driver
from pipelines.runner.executor import set_ray_environment
from pipelines.runner.inputs import Found
from pipelines.runner.ledger import Ledger
from pipelines.runner.local import LocalRunner
from pipelines.runner.recipe import Recipe, weights_identity
from pipelines.runner.stopping import StopRequest
from pipelines.runner.summary import RunFacts
from pipelines.runner.units import (
    FileDone,
    Outcome,
    Part,
    PartDone,
    Runner,
    Task,
    Unit,
    UnitResult,
)
from pipelines.runner.worker import Worker, Workplace
from tests.pipelines.fakes import FakeFileReport, FakeSpanReport
from tests.tones import tones

RATE = 44_100
CLIPS, CLIP_SECONDS = 24, 12.0
MANY_FILES = 100_000
ROWS = 1_000_000
SLEEP_A_SECOND_OF_AUDIO = 0.01
REPORT: Any = FakeFileReport(0.1, RATE, 1, 2.8, 3.0, 2.5, {"encode": 0.0})


@dataclass(frozen=True, slots=True)
class SleepingPlace:
    """A place whose workers take a time in proportion to the audio, and write nothing."""

    folder: Path
    seconds_a_second: float

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.folder,)

    def open(self) -> SleepingWorker:
        return SleepingWorker(self.seconds_a_second)


class SleepingWorker:
    model_name = model_id = "none"

    def __init__(self, seconds_a_second: float) -> None:
        self._pace = seconds_a_second

    def perform(self, unit: Unit) -> Outcome:
        time.sleep(unit.seconds * self._pace)
        if isinstance(unit, Part):
            report: Any = FakeSpanReport(unit.index, unit.index + 1)
            return Outcome(unit, (PartDone(unit.task.path, unit.index, report),))
        done: tuple[UnitResult, ...] = tuple(FileDone(task.path, (), REPORT) for task in unit.tasks)
        return Outcome(unit, done)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(("compress", "resynthesize"), "base", weights_identity("base"), 6, "wav")


def ledger_of(folder: Path, tasks: Sequence[Task], recipe: Recipe) -> Ledger:
    found = [Found(task.path, 1, 1) for task in tasks]
    return Ledger(LocalBooks(folder), found, recipe.key, same_root=True)


@contextmanager
def ray_runner(place: Any, num_workers: int | None, facts: RunFacts) -> Iterator[Runner]:
    """Workers on Ray: on this machine, or wherever RAY_ADDRESS says."""
    set_ray_environment()
    from ray._raylet import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()  # of the benchmark before
    from pipelines.runner.ray_cluster import RayRunner
    from pipelines.runner.ray_layout import Layout
    from pipelines.runner.ray_session import RaySession

    with (
        StopRequest() as stop,
        RaySession(num_workers or 1, stop),
        RayRunner(place, Layout("cpu", asked=num_workers), facts, stop) as runner,
    ):
        yield runner


def drive(
    folder: Path, tasks: Sequence[Task], recipe: Recipe, runner: Runner, facts: RunFacts
) -> float:
    """Wall seconds of the work, after the start of the workers."""
    folder.mkdir(parents=True, exist_ok=True)
    with ledger_of(folder, tasks, recipe) as ledger, StopRequest() as stop:
        Driver(ledger, recipe, runner, facts, stop).run(tasks)
        assert ledger.missing() == []
    return facts.wall_seconds


def write_clips(folder: Path) -> list[Task]:
    folder.mkdir()
    tasks = []
    for index in range(CLIPS):
        waveform = tones(round(CLIP_SECONDS * RATE), seed=index)
        write_audio(folder / f"{index:02d}.wav", Clip(waveform[None], RATE))
        tasks.append(Task(f"{index:02d}.wav", CLIP_SECONDS))
    return tasks


def bench_throughput_beside_a_bare_loop(tmp_path: Path, recipe: Recipe) -> None:
    """The shipped model, one worker: what is left of a bare loop over the same library calls."""
    tasks = write_clips(tmp_path / "in")

    def place(name: str) -> Workplace:
        there = Workplace(tmp_path / "in", tmp_path / name, recipe, "cpu", "bench")
        there.prepare()
        return there

    worker = place("bare").open()
    bare_loop(worker, tasks[:1])  # the first batch of a process is slow
    seconds = {"bare": 0.0, "local": 0.0, "ray": 0.0}
    ray_facts = RunFacts("ray", "cpu", 1)
    with ray_runner(place("ray"), 1, ray_facts) as on_ray:
        drive(tmp_path / "warm", tasks[:1], recipe, on_ray, RunFacts("ray", "cpu", 1))
        for start in range(0, CLIPS, CLIPS // 3):  # in turns: the machine may have other work
            share = tasks[start : start + CLIPS // 3]
            seconds["bare"] += bare_loop(worker, share)
            facts = RunFacts("local", "cpu", 1)
            with LocalRunner(place("local").open(), 1) as local:
                seconds["local"] += drive(tmp_path / "l" / str(start), share, recipe, local, facts)
            seconds["ray"] += drive(tmp_path / "r" / str(start), share, recipe, on_ray, ray_facts)
    audio = CLIPS * CLIP_SECONDS
    print(
        f"\none core: bare loop {audio / seconds['bare']:.1f}x realtime, local runner "
        f"{seconds['bare'] / seconds['local']:.2f} of it, "
        f"Ray {seconds['bare'] / seconds['ray']:.2f}"
    )


def bare_loop(worker: Worker, tasks: Sequence[Task]) -> float:
    started = time.perf_counter()
    agenda = Agenda(tasks)
    while (unit := agenda.next_unit()) is not None:
        worker.perform(unit)
    return time.perf_counter() - started


def bench_threads_beside_processes(tmp_path: Path, recipe: Recipe) -> None:
    """The shipped model, two workers: threads of one process, and processes of Ray."""
    tasks = write_clips(tmp_path / "in")
    place = Workplace(tmp_path / "in", tmp_path / "out", recipe, "cpu", "bench")
    place.prepare()
    facts = {name: RunFacts(name, "cpu", 2) for name in ("local", "ray")}
    with ray_runner(place, 2, facts["ray"]) as on_ray, LocalRunner(place.open(), 2) as local:
        runners: dict[str, Runner] = {"ray": on_ray, "local": local}
        seconds = dict.fromkeys(runners, 0.0)
        for start in range(0, CLIPS, CLIPS // 3):
            share = tasks[start : start + CLIPS // 3]
            for name, runner in runners.items():
                books = tmp_path / name / str(start)
                seconds[name] += drive(books, share, recipe, runner, facts[name])
    audio = CLIPS * CLIP_SECONDS
    print(
        f"\ntwo workers: threads {audio / seconds['local']:.1f}x realtime, processes of Ray "
        f"{seconds['local'] / seconds['ray']:.2f} of it"
    )


def bench_overhead_of_many_tiny_files(tmp_path: Path, recipe: Recipe) -> None:
    """Workers that do nothing: what a file costs, and whether the driver grows."""
    tasks = [Task(f"{index:06d}.wav", 0.1) for index in range(MANY_FILES)]
    facts = RunFacts("ray", "cpu", 2)
    with ray_runner(SleepingPlace(tmp_path, 0.0), 2, facts) as runner:
        drive(tmp_path / "first", tasks[: MANY_FILES // 10], recipe, runner, facts)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall = drive(tmp_path / "all", tasks, recipe, runner, facts)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"\n{MANY_FILES} files of 0.1 s, workers that do nothing: {wall / MANY_FILES * 1e3:.3f} ms "
        f"a file; peak memory {before >> 10} MiB after the first tenth, "
        f"{after >> 10} MiB at the end"
    )


def bench_a_long_file_beside_short_ones(tmp_path: Path, recipe: Recipe) -> None:
    """Workers that sleep: when the short files are done, with and without ten hours before them."""
    spans = tuple((8 * index, 8 * index + 8) for index in range(390))
    long = Task("a-long.wav", 36_000.0, 1, spans)
    shorts = [Task(f"short{index:03d}.wav", 60.0) for index in range(100)]
    pace = SLEEP_A_SECOND_OF_AUDIO / 10
    for tasks in (shorts, [long, *shorts]):
        facts = RunFacts("ray", "cpu", 2)
        with ray_runner(SleepingPlace(tmp_path, pace), 2, facts) as runner:
            books = tmp_path / str(len(tasks))
            wall = drive(books, tasks, recipe, runner, facts)
        lines = (books / "manifest.jsonl").read_text().splitlines()
        results = [row["path"] for row in map(json.loads, lines) if row["status"] == "ok"]
        print(f"\n{len(tasks)} files: {wall:.1f} s in all, the last to be done is {results[-1]}")


def bench_two_nodes_beside_one(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that sleep, on nodes of two cores that are processes here."""
    from tests.pipelines.ray_nodes import RayNodes

    cores = 2
    tasks = [Task(f"{index:04d}.wav", 60.0) for index in range(120)]
    walls = []
    with RayNodes((cores,)) as nodes:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, nodes.environment[name])
        for num_nodes in (1, 2):
            if num_nodes == 2:
                nodes.add(cores)
            workers = cores * num_nodes
            facts = RunFacts("ray", "cpu", workers)
            place = SleepingPlace(tmp_path, SLEEP_A_SECOND_OF_AUDIO)
            with ray_runner(place, workers, facts) as runner:
                while runner.capacity < workers:
                    nodes.mend()  # on a busy machine
                    runner.next_outcome(0.5)
                walls.append(drive(tmp_path / str(num_nodes), tasks, recipe, runner, facts))
    print(f"\ntwo nodes, sleeping workers: {walls[0] / walls[1]:.2f} times one node")


def bench_a_rerun_with_nothing_to_do(tmp_path: Path, recipe: Recipe) -> None:
    """A manifest of a million rows, all of whose outputs are one file."""
    (tmp_path / "one.wav").write_bytes(b"x" * 44)
    found = [Found(f"d{index >> 10}/{index:07d}.wav", 1, 1) for index in range(ROWS)]
    with (tmp_path / "manifest.jsonl").open("w", encoding="utf-8") as file:
        for entry in found:
            outputs = [{"product": "resynthesize", "path": "one.wav", "size": 44}] * 2
            row = {"path": entry.path, "status": "ok", "size": 1, "mtime_ns": 1}
            row |= {"recipe": recipe.key, "seconds": 1.0, "outputs": outputs}
            file.write(json.dumps(row) + "\n")
    started, spent = time.perf_counter(), time.process_time()
    ledger = Ledger(LocalBooks(tmp_path), found, recipe.key, same_root=True)
    with ledger:
        assert ledger.missing() == []
        assert not ledger.compact(lambda path: True)
    wall, spent = time.perf_counter() - started, time.process_time() - spent
    print(f"\n{ROWS} rows, nothing to do: {wall:.1f} s, {spent:.1f} s of one core")
