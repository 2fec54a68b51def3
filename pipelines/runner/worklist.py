"""What is to be done by workers that may die: attempts at units, and who is to blame.

A worker has one unit in flight, so a dead worker points at exactly one attempt. Its node may be
to blame: then the unit is simply tried again. If not, the unit is suspect. A pack is taken
apart, so that each of its files is tried for itself; a file of which a worker died is tried again
by workers that have done nothing else, and is blamed when three of those have died.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from pipelines.runner.units import FileFailed, Outcome, Pack, Unit, UnitResult

DEATHS_TO_BLAME: Final = 3
_LOSSES_TO_SUSPECT: Final = 5  # so often not even a node dies by chance
BLAME: Final = "WorkerDied"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a unit, or at one file of a pack that was taken apart.

    Attributes:
        unit: What the worker is given.
        origin: What was submitted; the same, unless that was a larger pack.
        deaths: Workers that died of it and had done nothing else.
        losses: Nodes that were lost with it.
    """

    unit: Unit
    origin: Unit
    deaths: int = 0
    losses: int = 0


@dataclass(slots=True)
class _TakenApart:
    """A pack whose files are tried alone: what came of them so far."""

    results: dict[str, UnitResult] = field(default_factory=dict)


class Worklist:
    """Hands out attempts, and turns what becomes of them into one outcome for every unit."""

    def __init__(self) -> None:
        self._new: deque[Attempt] = deque()
        self._again: deque[Attempt] = deque()
        self._suspects: deque[Attempt] = deque()
        self._apart: dict[int, _TakenApart] = {}

    @property
    def waits_for_fresh_worker(self) -> bool:
        """Whether suspects are all that is left to hand out."""
        return bool(self._suspects) and not self._again and not self._new

    def __bool__(self) -> bool:
        """Whether anything waits for a worker."""
        return bool(self._new or self._again or self._suspects)

    def submit(self, unit: Unit) -> None:
        """Take in a unit."""
        self._new.append(Attempt(unit, unit))

    def take(self, *, fresh: bool) -> Attempt | None:
        """The next attempt for a worker, None if there is none for it.

        Args:
            fresh: Whether the worker has done nothing yet. Only such a one gets a suspect, so
                that nothing but the suspect can be the reason of its death.
        """
        for queue in (self._suspects if fresh else (), self._again, self._new):
            if queue:
                return queue.popleft()
        return None

    def done(self, attempt: Attempt, outcome: Outcome) -> Outcome | None:
        """Take in what a worker reported; returns the outcome of a unit if this completes it."""
        apart = self._apart.get(attempt.origin.number)
        if apart is None:
            return outcome
        apart.results |= {result.path: result for result in outcome.results}
        complete = len(apart.results) == len(attempt.origin.tasks)
        if not complete and not outcome.fatal:
            return None
        del self._apart[attempt.origin.number]
        return Outcome(attempt.origin, tuple(apart.results.values()), outcome.fatal)

    def lost(self, attempt: Attempt) -> Outcome | None:
        """A worker went away for a reason of its own: its node, or the network."""
        attempt = replace(attempt, losses=attempt.losses + 1)
        if attempt.losses % _LOSSES_TO_SUSPECT == 0:
            return self.died(attempt, alone=True)
        self._again.append(attempt)
        return None

    def died(self, attempt: Attempt, *, alone: bool) -> Outcome | None:
        """A worker died of this attempt, as far as can be known.

        Args:
            attempt: What it was at.
            alone: Whether that was all it ever did.
        """
        unit = attempt.unit
        if isinstance(unit, Pack) and len(unit.tasks) > 1:
            self._apart[attempt.origin.number] = _TakenApart()
            self._again.extend(
                Attempt(Pack(unit.number, (task,)), attempt.origin) for task in unit.tasks
            )
            return None
        attempt = replace(attempt, deaths=attempt.deaths + alone)
        if attempt.deaths < DEATHS_TO_BLAME:
            self._suspects.append(attempt)
            return None
        blamed = tuple(_blame(task.path) for task in unit.tasks)
        return self.done(attempt, Outcome(unit, blamed))


def _blame(path: str) -> FileFailed:
    reason = (
        f"expected a worker to get through this file, but {DEATHS_TO_BLAME} died, or got stuck and "
        "were ended, while it was all they had to do; it may need more memory than there is, or "
        "break a decoder"
    )
    return FileFailed(path, BLAME, reason, retry=True)
