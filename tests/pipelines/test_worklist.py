from __future__ import annotations

from typing import Any

import pytest

from pipelines.runner.units import FileDone, FileFailed, Outcome, Pack, Part, Task, Unit
from pipelines.runner.worklist import BLAME, DEATHS_TO_BLAME, Attempt, Worklist

REPORT: Any = object()


def pack(number: int, *names: str) -> Pack:
    return Pack(number, tuple(Task(name, 1.0) for name in names))


def outcome(unit: Unit) -> Outcome:
    return Outcome(unit, tuple(FileDone(task.path, (), REPORT) for task in unit.tasks))


def taken(worklist: Worklist, *, fresh: bool = False) -> Attempt:
    attempt = worklist.take(fresh=fresh)
    assert attempt is not None
    return attempt


def paths(outcome: Outcome | None) -> dict[str, str]:
    """Path to what came of it."""
    assert outcome is not None
    return {
        result.path: result.kind if isinstance(result, FileFailed) else "ok"
        for result in outcome.results
    }


def run_to_end(worklist: Worklist, killers: set[str], workers: int = 2) -> list[Outcome]:
    """Workers that die of killers and are replaced by fresh ones, until nothing is left."""
    fresh = [True] * workers
    outcomes = []
    while worklist:
        for index in range(workers):
            if (attempt := worklist.take(fresh=fresh[index])) is None:
                fresh[index] = True  # an idle one is replaced
                continue
            dies = any(task.path in killers for task in attempt.unit.tasks)
            ended = (
                worklist.died(attempt, alone=fresh[index])
                if dies
                else worklist.done(attempt, outcome(attempt.unit))
            )
            fresh[index] = dies
            outcomes += [ended] if ended else []
    return outcomes


def test_units_come_back_as_they_were() -> None:
    worklist = Worklist()
    first, second = pack(0, "a", "b"), pack(1, "c")
    worklist.submit(first)
    worklist.submit(second)
    assert run_to_end(worklist, set()) == [outcome(first), outcome(second)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_killers_of_a_pack_are_blamed_and_no_others(workers: int) -> None:
    worklist = Worklist()
    for number in range(4):
        worklist.submit(pack(number, *(f"{number}{letter}" for letter in "abcdefgh")))
    outcomes = run_to_end(worklist, {"0c", "0d", "2h"}, workers)
    assert sorted(o.unit.number for o in outcomes) == [0, 1, 2, 3]
    found = {path: kind for o in outcomes for path, kind in paths(o).items()}
    assert len(found) == 32
    assert {path for path, kind in found.items() if kind == BLAME} == {"0c", "0d", "2h"}
    assert {kind for path, kind in found.items() if kind != BLAME} == {"ok"}


def test_deaths_count_only_where_nothing_else_can_be_the_reason() -> None:
    worklist = Worklist()
    worklist.submit(pack(0, "a"))
    attempt = taken(worklist)
    for _ in range(10):
        assert worklist.died(attempt, alone=False) is None
        assert worklist.take(fresh=False) is None  # a worker with a history does not get it
        assert worklist.waits_for_fresh_worker
        attempt = taken(worklist, fresh=True)
    assert paths(worklist.done(attempt, outcome(attempt.unit))) == {"a": "ok"}


def test_a_lost_node_is_nobodys_fault() -> None:
    worklist = Worklist()
    worklist.submit(pack(0, "a", "b"))
    for _ in range(DEATHS_TO_BLAME):
        assert worklist.lost(taken(worklist)) is None
    attempt = taken(worklist)
    assert attempt.unit == pack(0, "a", "b")
    assert paths(worklist.done(attempt, outcome(attempt.unit))) == {"a": "ok", "b": "ok"}


def test_a_file_that_takes_its_node_along_is_found_in_the_end() -> None:
    worklist = Worklist()
    worklist.submit(pack(0, "a"))
    for _ in range(100):
        if (ended := worklist.lost(taken(worklist, fresh=True))) is not None:
            break
    assert paths(ended) == {"a": BLAME}


def test_a_part_that_kills_fails_its_file() -> None:
    worklist = Worklist()
    task = Task("long", 100.0, 1, ((0, 2), (2, 4)))
    worklist.submit(Part(7, task, 1))
    (ended,) = run_to_end(worklist, {"long"})
    assert ended.unit == Part(7, task, 1)
    assert paths(ended) == {"long": BLAME}


def test_a_full_disk_ends_a_pack_that_was_taken_apart() -> None:
    worklist = Worklist()
    worklist.submit(pack(3, "a", "b"))
    assert worklist.died(taken(worklist), alone=True) is None
    attempt = taken(worklist)
    ended = worklist.done(attempt, Outcome(attempt.unit, fatal="disk full"))
    assert ended is not None
    assert (ended.unit, ended.fatal) == (pack(3, "a", "b"), "disk full")
