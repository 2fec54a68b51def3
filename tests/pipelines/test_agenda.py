from __future__ import annotations

from typing import Any

import pytest

from pipelines.runner.agenda import MAX_PACK_FILES, MAX_PACK_SECONDS, MIN_PACK_SECONDS, Agenda
from pipelines.runner.units import (
    Assembly,
    FileDone,
    FileFailed,
    Outcome,
    Pack,
    Part,
    PartDone,
    Task,
    Unit,
)

SPANS = ((0, 2), (2, 4), (4, 5))
REPORT: Any = object()


def short(count: int, seconds: float) -> list[Task]:
    return [Task(f"{index:05d}", seconds) for index in range(count)]


def drain(agenda: Agenda) -> list[Unit]:
    units = []
    while (unit := agenda.next_unit()) is not None:
        units.append(unit)
    return units


def test_packs_hold_every_file_once_in_order() -> None:
    tasks = short(1000, 7.0)
    packs = drain(Agenda(tasks))
    assert [task for pack in packs for task in pack.tasks] == tasks
    assert all(MIN_PACK_SECONDS <= pack.seconds <= MAX_PACK_SECONDS for pack in packs[:-1])


def test_packs_of_tiny_files_are_bounded_by_count() -> None:
    packs = drain(Agenda(short(1000, 0.01)))
    assert [len(pack.tasks) for pack in packs] == [MAX_PACK_FILES] * 15 + [40]


def test_a_file_that_would_overfill_a_pack_begins_the_next() -> None:
    tasks = [Task("a", 50.0), Task("b", 100.0)]
    assert [pack.tasks for pack in drain(Agenda(tasks))] == [(tasks[0],), (tasks[1],)]


def test_small_jobs_may_ask_for_small_packs() -> None:
    assert len(drain(Agenda(short(10, 5.0), pack_seconds=12.0))) == 4
    assert len(drain(Agenda(short(24, 5.0), pack_seconds=1000.0))) == 2


def test_many_channels_make_small_packs() -> None:
    tasks = [Task(str(index), 10.0, num_channels=16) for index in range(4)]
    assert [len(pack.tasks) for pack in drain(Agenda(tasks))] == [1, 1, 1, 1]


def test_units_have_distinct_numbers() -> None:
    units = drain(Agenda([*short(100, 7.0), Task("long", 500.0, 1, SPANS)]))
    assert len({unit.number for unit in units}) == len(units)


def test_a_long_file_is_assembled_once_its_parts_exist() -> None:
    task = Task("long", 50.0, 1, SPANS)
    agenda = Agenda([task])
    parts = [unit for unit in drain(agenda) if isinstance(unit, Part)]
    assert [part.index for part in parts] == [0, 1, 2]
    assert [part.seconds for part in parts] == [20.0, 20.0, 10.0]
    reports: list[Any] = ["first", "second", "third"]
    for part in reversed(parts):  # parts may come back in any order
        assert agenda.next_unit() is None
        report = reports[part.index]
        assert agenda.settle(Outcome(part, (PartDone("long", part.index, report),))) == []
    assembly = agenda.next_unit()
    assert isinstance(assembly, Assembly)
    assert assembly.reports == tuple(reports)
    done = FileDone("long", (), REPORT)
    assert agenda.settle(Outcome(assembly, (done,))) == [done]
    assert agenda.next_unit() is None


def test_a_failed_part_decides_the_file_once_and_drops_the_rest() -> None:
    agenda = Agenda([Task("long", 50.0, 1, SPANS), *short(1, 1.0)])
    first, other, second = agenda.next_unit(), agenda.next_unit(), agenda.next_unit()
    assert isinstance(first, Part)
    assert isinstance(other, Pack)
    assert isinstance(second, Part)
    failed = FileFailed("long", "CorruptAudioError", "noise", retry=False)
    assert agenda.settle(Outcome(first, (failed,))) == [failed]
    assert agenda.settle(Outcome(second, (failed,))) == []
    assert drain(agenda) == []


@pytest.mark.parametrize("long_first", [True, False])
def test_a_long_file_neither_holds_up_short_ones_nor_waits_for_them(long_first: bool) -> None:
    long = Task("long", 36_000.0, 1, tuple((8 * i, 8 * i + 8) for i in range(390)))
    shorts = short(50, 100.0)
    units = drain(Agenda([long, *shorts] if long_first else [*shorts, long]))
    assert len(units) == 440
    kinds = [type(unit) for unit in units[:100]]
    assert kinds == [Part, Pack] * 50


def test_parts_done_after_a_failure_assemble_nothing() -> None:
    agenda = Agenda([Task("long", 50.0, 1, SPANS)])
    parts = [unit for unit in drain(agenda) if isinstance(unit, Part)]
    failed = FileFailed("long", "MemoryError", "no message", retry=True)
    agenda.settle(Outcome(parts[0], (failed,)))
    for part in parts[1:]:
        agenda.settle(Outcome(part, (PartDone("long", part.index, REPORT),)))
    assert agenda.next_unit() is None
