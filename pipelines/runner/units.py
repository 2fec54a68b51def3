"""The words that plan, runners and ledger exchange: tasks, units of work, results, `Runner`.

All of it can be pickled and none of it needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from audiovae.commands import one_line
from audiovae.errors import AudioReadError

if TYPE_CHECKING:
    from types import TracebackType

    from audiovae.reports import FileReport, SpanReport

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Task:
    """One audio file to be done: its length, and its spans if it is too long for one unit."""

    path: str
    seconds: float
    num_channels: int = 1
    spans: tuple[Span, ...] = ()

    @property
    def load_seconds(self) -> float:
        """Length as a measure of work and memory: two channels count once, 32 sixteen times."""
        return self.seconds * max(1.0, self.num_channels / 2)


@dataclass(frozen=True, slots=True)
class Pack:
    """Unit: whole files, done together by one worker."""

    number: int
    tasks: tuple[Task, ...]

    @property
    def seconds(self) -> float:
        """Seconds of audio that are done when this unit is."""
        return sum(task.seconds for task in self.tasks)


@dataclass(frozen=True, slots=True)
class Part:
    """Unit: the span `index` of one long file, written to a part file."""

    number: int
    task: Task
    index: int

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The file this unit belongs to."""
        return (self.task,)

    @property
    def seconds(self) -> float:
        """Seconds of audio that are done when this unit is."""
        first, last = self.task.spans[self.index]
        return self.task.seconds * (last - first) / self.task.spans[-1][1]


@dataclass(frozen=True, slots=True)
class Assembly:
    """Unit: the parts of one long file become its output. Any worker can do it."""

    number: int
    task: Task
    reports: tuple[SpanReport, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The file this unit belongs to."""
        return (self.task,)

    @property
    def seconds(self) -> float:
        """None: its parts have counted."""
        return 0.0


Unit = Pack | Part | Assembly


@dataclass(frozen=True, slots=True)
class Output:
    """An output file: its product, its path below the output directory, its size in bytes."""

    product: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class FileDone:
    """A file whose outputs are all in place."""

    path: str
    outputs: tuple[Output, ...]
    report: FileReport


@dataclass(frozen=True, slots=True)
class FileFailed:
    """A file that could not be done.

    `retry` tells whether another run may fare better with the same bytes: not if the content
    itself was refused.
    """

    path: str
    kind: str
    reason: str
    retry: bool


@dataclass(frozen=True, slots=True)
class FileSkipped:
    """A file that neither is audio nor claims to be."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class PartDone:
    """A span of a long file whose part file is in place."""

    path: str
    index: int
    report: SpanReport


UnitResult = FileDone | FileFailed | PartDone


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a unit. `fatal`, if not empty, says why no further unit can succeed."""

    unit: Unit
    results: tuple[UnitResult, ...] = field(default=())
    fatal: str = ""


class Performer(Protocol):
    """What turns units into outcomes, and never raises for what a file or the disk did."""

    @property
    def model_name(self) -> str:
        """Name of the model it works with, "" if it needs none."""

    @property
    def model_id(self) -> str:
        """Identity of the model's weights, "" if it needs none."""

    def perform(self, unit: Unit) -> Outcome:
        """Do one unit of work."""


class Runner(Protocol):
    """Where units are worked on. The driver keeps at most `capacity` units in flight.

    A runner owns what its workers need to survive (restarts, requeueing); every submitted unit
    comes back exactly once as an `Outcome`, in any order.
    """

    @property
    def capacity(self) -> int:
        """Units in flight that keep every worker busy."""

    def submit(self, unit: Unit) -> None:
        """Hand a unit to some worker, without waiting."""

    def next_outcome(self, timeout_seconds: float) -> Outcome | None:
        """Wait for the next outcome, None if there is none in time."""

    def __enter__(self) -> Runner:
        """Start the workers."""

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Let the workers go; units still in flight are dropped."""


def failure(path: str, error: BaseException) -> FileFailed:
    """Describe the error of one file."""
    content_refused = isinstance(error, AudioReadError) and type(error) is not AudioReadError
    reason = one_line(error) or "no message"
    # The path is in the row already; without it, a reason does not depend on where the root is.
    _, found, rest = reason.partition(f"{one_line(path.rpartition('/')[2])}: ")
    reason = rest if found and rest else reason
    return FileFailed(path, type(error).__name__, reason, retry=not content_refused)
