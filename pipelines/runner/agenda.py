"""Tasks to units of work, in the order in which they become ready.

Short files travel in packs of 60 to 120 s of audio, so that 100 000 tiny files are not 100 000
units; a long file is cut into spans, so that ten hours cost no more memory than a minute, and
its parts are put together by a last unit. Packs and parts take turns, so that short files are not
held up by a long one before them, nor long ones left to the end, when other workers are idle.
What is packed together, and when, never changes the bytes of an output.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from audiovae.reports import SpanReport

MIN_PACK_SECONDS: Final = 60.0
MAX_PACK_SECONDS: Final = 120.0
MAX_PACK_FILES: Final = 64


@dataclass(slots=True)
class _LongFile:
    """What is known of a file whose parts are under way."""

    task: Task
    reports: dict[int, SpanReport] = field(default_factory=dict)
    failed: bool = False


class Agenda:
    """Hands out units and learns from their outcomes what is ready next.

    Args:
        tasks: Files to be done, in plan order.
        pack_seconds: A pack is closed once it holds this much audio.
    """

    def __init__(self, tasks: Sequence[Task], pack_seconds: float = MIN_PACK_SECONDS) -> None:
        self._numbers = count()
        self._units = _taking_turns(
            _parts(tasks, self._numbers),
            _packs(tasks, min(pack_seconds, MIN_PACK_SECONDS), self._numbers),
        )
        self._ready: deque[Unit] = deque()
        self._long_files: dict[str, _LongFile] = {}

    def next_unit(self) -> Unit | None:
        """The next unit, None if nothing is ready before an outcome arrives."""
        if self._ready:
            return self._ready.popleft()
        for unit in self._units:
            if isinstance(unit, Part):
                path = unit.task.path
                if self._long_files.setdefault(path, _LongFile(unit.task)).failed:
                    continue
            return unit
        return None

    def settle(self, outcome: Outcome) -> list[FileDone | FileFailed]:
        """Take in an outcome.

        Returns:
            The files whose fate it decides; each file comes up once.
        """
        decided: list[FileDone | FileFailed] = []
        for result in outcome.results:
            if isinstance(result, PartDone):
                self._add_part(result)
            elif not isinstance(outcome.unit, Part):
                self._long_files.pop(result.path, None)
                decided.append(result)
            elif isinstance(result, FileFailed) and not self._long_files[result.path].failed:
                self._long_files[result.path].failed = True
                decided.append(result)
        return decided

    def _add_part(self, part: PartDone) -> None:
        file = self._long_files[part.path]
        file.reports[part.index] = part.report
        if len(file.reports) == len(file.task.spans) and not file.failed:
            reports = tuple(file.reports[index] for index in range(len(file.task.spans)))
            self._ready.append(Assembly(next(self._numbers), file.task, reports))


def _parts(tasks: Sequence[Task], numbers: Iterator[int]) -> Iterator[Unit]:
    for task in tasks:
        for index in range(len(task.spans)):
            yield Part(next(numbers), task, index)


def _packs(tasks: Sequence[Task], pack_seconds: float, numbers: Iterator[int]) -> Iterator[Unit]:
    packed: list[Task] = []
    seconds = 0.0
    for task in tasks:
        if task.spans:
            continue
        if packed and seconds + task.load_seconds > MAX_PACK_SECONDS:
            yield Pack(next(numbers), tuple(packed))
            packed, seconds = [], 0.0
        packed.append(task)
        seconds += task.load_seconds
        if seconds >= pack_seconds or len(packed) == MAX_PACK_FILES:
            yield Pack(next(numbers), tuple(packed))
            packed, seconds = [], 0.0
    if packed:
        yield Pack(next(numbers), tuple(packed))


def _taking_turns(*sources: Iterator[Unit]) -> Iterator[Unit]:
    waiting = deque(sources)
    while waiting:
        source = waiting.popleft()
        for unit in source:
            yield unit
            waiting.append(source)
            break
