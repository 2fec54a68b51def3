"""How long a unit may take before its worker counts as stuck.

A decoder in an endless loop, or a read from a server that never answers, must not hold up a batch
for ever. What is long depends on model and machine, so it is measured: many times longer than the
slowest unit so far, by the length of the audio. Until one is done, real time stands for it.
"""

from __future__ import annotations

from typing import Final

from pipelines.runner.units import Unit

_LEAST_SECONDS: Final = 120.0
_TIMES_THE_SLOWEST: Final = 20.0
_OVERHEAD_SECONDS: Final = 1.0  # of audio: what a unit costs however short it is


class Patience:
    """Learns from what is done how long anything may take."""

    def __init__(self) -> None:
        self._pace: float | None = None

    def learn(self, unit: Unit, wall_seconds: float) -> None:
        """Take note of a unit that is done."""
        pace = wall_seconds / (unit.seconds + _OVERHEAD_SECONDS)
        self._pace = max(self._pace or 0.0, pace)

    def seconds_for(self, unit: Unit) -> float:
        """Wall seconds after which a worker at `unit` is given up.

        A part counts as its whole file, which may have to be fetched for it.
        """
        pace = 1.0 if self._pace is None else self._pace
        length = sum(task.load_seconds for task in unit.tasks) + _OVERHEAD_SECONDS
        return _LEAST_SECONDS + _TIMES_THE_SLOWEST * pace * length
