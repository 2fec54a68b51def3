"""The loop between agenda, runner and ledger; the same for every runner."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Final

from audiovae.commands import counted
from pipelines.runner.agenda import MIN_PACK_SECONDS, Agenda
from pipelines.runner.ledger import Ledger
from pipelines.runner.progress import Progress, Tally
from pipelines.runner.recipe import Recipe
from pipelines.runner.stopping import FatalProblem, StopRequest
from pipelines.runner.summary import RunFacts
from pipelines.runner.units import FileDone, FileFailed, Outcome, Pack, Part, Runner, Task, Unit

_POLL_SECONDS: Final = 0.25
_PACKS_PER_WORKER: Final = 4
_SMALLEST_PACK_SECONDS: Final = 12.0  # one full batch on a CPU

_logger = logging.getLogger(__name__)


class Driver:
    """Feeds a runner with a bounded number of units and books what comes back.

    Args:
        ledger: Open for writing; learns of every start and every result.
        recipe: Names the outputs of a file.
        runner: Started; does the work.
        facts: Grows with every outcome.
        stop: Asked between outcomes.
    """

    def __init__(
        self,
        ledger: Ledger,
        recipe: Recipe,
        runner: Runner,
        facts: RunFacts,
        stop: StopRequest,
    ) -> None:
        self._ledger = ledger
        self._recipe = recipe
        self._runner = runner
        self._facts = facts
        self._stop = stop

    def run(self, tasks: Sequence[Task]) -> None:
        """Work until every task is settled or somebody says stop.

        Raises:
            FatalProblem: If an outcome says that nothing can succeed any more.
        """
        seconds = sum(task.seconds for task in tasks)
        facts = self._facts
        sys.stderr.write(
            f"files={len(tasks)} audio_seconds={seconds:.0f} model={facts.model_name} "
            f"executor={facts.executor} workers={facts.num_workers} device={facts.device}\n"
        )
        # Packs shrink for a small job so that every worker gets some; bytes do not depend on it.
        load = sum(task.load_seconds for task in tasks)
        share = load / (facts.num_workers * _PACKS_PER_WORKER)
        pack_seconds = min(MIN_PACK_SECONDS, max(share, _SMALLEST_PACK_SECONDS))
        with Progress(Tally(seconds, len(tasks)), sys.stderr) as progress:
            self._stop.immediate = False
            try:
                self._loop(Agenda(tasks, pack_seconds), progress)
            finally:
                self._stop.immediate = True
                facts.wall_seconds = progress.wall_seconds

    def _loop(self, agenda: Agenda, progress: Progress) -> None:
        in_flight = 0
        told = False
        while True:
            while not self._stop.requested and in_flight < self._runner.capacity:
                unit = agenda.next_unit()
                if unit is None:
                    break
                self._announce(unit)
                self._runner.submit(unit)
                in_flight += 1
            if in_flight == 0 or self._stop.expired:
                return
            outcome = self._runner.next_outcome(_POLL_SECONDS)
            progress.tick()
            if self._stop.requested and not told:
                told = True
                sys.stderr.write(
                    f"stopping: {counted(in_flight, 'unit')} in flight may still finish; "
                    "press Ctrl-C again to drop them\n"
                )
            if outcome is not None:
                in_flight -= 1
                self._book(outcome, agenda, progress.tally)

    def _announce(self, unit: Unit) -> None:
        """Tell the ledger which outputs are about to appear."""
        if isinstance(unit, Pack) or (isinstance(unit, Part) and unit.index == 0):
            self._ledger.start(
                (task.path, tuple(path for _, path in self._recipe.outputs_for(task.path)))
                for task in unit.tasks
            )

    def _book(self, outcome: Outcome, agenda: Agenda, tally: Tally) -> None:
        decided = agenda.settle(outcome)
        self._ledger.record(decided)
        tally.done_seconds += outcome.unit.seconds
        for result in decided:
            tally.done_files += 1
            self._facts.files += 1
            if isinstance(result, FileDone):
                self._book_done(result)
            else:
                tally.failed_files += 1
                self._facts.failed_files += 1
                _log_failure(result)
        if outcome.fatal:
            raise FatalProblem(f"{outcome.fatal}; mend that and run the same command again")

    def _book_done(self, result: FileDone) -> None:
        self._facts.audio_seconds += result.report.seconds
        stages = self._facts.stage_seconds
        for stage, seconds in result.report.timings_seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
        _logger.info("path=%r status=ok audio_seconds=%.2f", result.path, result.report.seconds)


def _log_failure(result: FileFailed) -> None:
    _logger.warning(
        "path=%r status=error error=%s reason=%r", result.path, result.kind, result.reason
    )
