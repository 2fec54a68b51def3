"""A batch from INPUT to exit status: survey, plan, work, ledger, summary, report.

A rerun walks the same way; what is settled is not planned again, and when nothing is left it
ends before torch is imported.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import audiovae
from audiovae.commands import (
    ExitStatus,
    Interrupted,
    UsageProblem,
    complain,
    counted,
    one_line,
)
from audiovae.pretrained import PRETRAINED_DIR, find_checkpoint
from pipelines.runner.desk import MANIFEST_NAME, REPORT_NAME, Books, books_to_read, open_desk
from pipelines.runner.driver import Driver
from pipelines.runner.executor import Executor, choose_executor, set_ray_environment
from pipelines.runner.ferry import FerryPlace, ferried
from pipelines.runner.inputs import Found, Source, locate, survey
from pipelines.runner.ledger import Ledger
from pipelines.runner.local import LocalRunner, available_cores, default_workers, resolve_device
from pipelines.runner.lock import previous_root, require_ours
from pipelines.runner.plan import OutputGuard, examine
from pipelines.runner.progress import duration
from pipelines.runner.recipe import Recipe
from pipelines.runner.stopping import FatalProblem, LogFile, StopRequest
from pipelines.runner.storage import WORK_DIR_NAME, Storage, open_storage, require_shared
from pipelines.runner.summary import SUMMARY_NAME, RunFacts, Totals, add_up, write_summary
from pipelines.runner.units import FileFailed, FileSkipped, Span, Task
from pipelines.runner.worker import Workplace

if TYPE_CHECKING:
    from audiovae.audio import AudioInfo

LOG_NAME: Final = "batch.log"
_BOOKS: Final = (MANIFEST_NAME, REPORT_NAME, SUMMARY_NAME)
_NAMED_AT_MOST: Final = 20

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What the command line says."""

    input: str
    recipe: Recipe
    output_dir: Path | str | None = None
    executor: Executor = "auto"
    num_workers: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    overwrite: bool = False
    allow_errors: bool = False
    dry_run: bool = False
    report: bool = True


def run_batch(options: BatchOptions) -> ExitStatus:
    """Do a whole batch.

    Raises:
        UsageProblem: If the command line asks for something that cannot be.
        FatalProblem: If the batch cannot go on; a rerun continues it.
        Interrupted: If it was asked to stop; a rerun continues it.
    """
    source = locate(options.input)
    output = open_storage(str(options.output_dir or source.default_output))
    found = survey(source, output)
    if not options.overwrite:
        require_ours(output, _BOOKS, remedy="choose another, or add --overwrite")
    recipe_key = options.recipe.key
    same_root = _is_continued(options, source, output, found)
    if options.dry_run:
        with books_to_read(output) as books:
            ledger = Ledger(books, found, recipe_key, same_root=same_root)
            return _Batch(options, source, output, books, ledger).rehearse()
    with (
        StopRequest() as stop,
        open_desk(output, source.storage.name, (LOG_NAME, REPORT_NAME, SUMMARY_NAME)) as desk,
        LogFile(desk.folder / LOG_NAME),
    ):
        ledger = Ledger(desk, found, recipe_key, same_root=same_root)
        return _Batch(options, source, output, desk, ledger).run(stop)


def _is_continued(
    options: BatchOptions, source: Source, output: Storage, found: Sequence[Found]
) -> bool:
    """Whether the output directory is that of this input, which may have moved since.

    Raises:
        UsageProblem: If it is that of another input, and may not be replaced.
    """
    previous = previous_root(output)
    if previous in ("", source.storage.name):
        return True
    with books_to_read(output) as books:
        if Ledger(books, found, options.recipe.key, same_root=False).fits_the_plan():
            return True
    if not options.overwrite:
        raise UsageProblem(
            f"--output-dir: expected a new directory or that of an earlier run on this input, got "
            f"'{output.name}' with the results of '{previous}'; choose another, or add --overwrite"
        )
    return False


class _Batch:
    """One batch: what its steps share."""

    def __init__(
        self, options: BatchOptions, source: Source, output: Storage, books: Books, ledger: Ledger
    ) -> None:
        self._options = options
        self._source = source
        self._output = output
        self._books = books
        self._ledger = ledger
        self._summary = books.folder / SUMMARY_NAME
        self._facts = RunFacts(executor="local")

    def rehearse(self) -> ExitStatus:
        """Say what `run` would do; write nothing."""
        tasks, refused = self._plan(plan_spans=None)
        counts = self._ledger.counts()
        failed = [result for result in refused if isinstance(result, FileFailed)]
        done, skipped = counts["ok"], counts["skipped"] + len(refused) - len(failed)
        audio = duration(sum(task.seconds for task in tasks))
        sys.stdout.write(
            f"would do {counted(len(tasks), 'file')} ({audio} of audio); "
            f"{done} are done, {skipped} skipped, {counts['error'] + len(failed)} refused\n"
            f"outputs: {one_line(self._output.name)}\n"
        )
        for task in tasks[:_NAMED_AT_MOST]:
            outputs = ", ".join(path for _, path in self._options.recipe.outputs_for(task.path))
            sys.stdout.write(f"  {one_line(task.path)} -> {one_line(outputs)}\n")
        if len(tasks) > _NAMED_AT_MOST:
            sys.stdout.write(f"  and {len(tasks) - _NAMED_AT_MOST} more\n")
        for result in failed[:_NAMED_AT_MOST]:
            complain(f"{result.path}: {result.reason}")
        return ExitStatus.DONE

    def run(self, stop: StopRequest) -> ExitStatus:
        """Plan, work, and leave manifest, summary and report behind."""
        self._clear_work_dir()  # of a run that was killed
        if damaged := self._ledger.num_damaged:
            are = "is" if damaged == 1 else "are"
            sys.stderr.write(
                f"{MANIFEST_NAME}: {counted(damaged, 'line')} {are} damaged and left out; if an "
                "output is said to exist below, add --overwrite, which makes that file again\n"
            )
        with self._ledger:
            tasks, refused = self._plan(_LazySpanPlanner())
            if self._ledger.record(refused) or tasks:
                self._summary.unlink(missing_ok=True)
            if tasks:
                try:
                    self._work(tasks, stop)
                finally:
                    self._clear_work_dir()
        if missing := self._ledger.missing():
            self._explain_missing(missing, stopped=stop.requested)
        changed = self._ledger.compact(self._still_there)
        if not tasks:
            self._say_nothing_to_do()
        if changed or not self._summary.exists():
            self._conclude()
        return self._status()

    def _plan(
        self, plan_spans: _LazySpanPlanner | None
    ) -> tuple[list[Task], list[FileFailed | FileSkipped]]:
        """Split what is pending into work and what is settled without any."""
        options = self._options
        guard = OutputGuard(
            self._output.exists, options.recipe, options.overwrite, self._ledger.known_outputs
        )
        tasks: list[Task] = []
        refused: list[FileFailed | FileSkipped] = []
        for verdict in examine(self._ledger.pending(), self._source.storage, guard, plan_spans):
            if isinstance(verdict, Task):
                tasks.append(verdict)
            else:
                refused.append(verdict)
        return tasks, refused

    def _work(self, tasks: Sequence[Task], stop: StopRequest) -> None:
        options = self._options
        num_workers = options.num_workers or available_cores()
        load = sum(task.load_seconds for task in tasks)
        choice = choose_executor(options.executor, load, num_workers)
        if choice.executor == "ray":
            require_shared(self._source.storage, self._output)
        sys.stderr.write(f"executor={choice.executor} because={choice.why!r}\n")
        (self._work_on_ray if choice.executor == "ray" else self._work_here)(tasks, stop)

    def _work_here(self, tasks: Sequence[Task], stop: StopRequest) -> None:
        device = resolve_device(self._options.device)
        worker = self._workplace(device, is_shared=False).open()
        num_workers = self._options.num_workers or default_workers(device)
        self._facts = RunFacts("local", device, num_workers, worker.model_name, worker.model_id)
        with LocalRunner(worker, num_workers) as runner:
            Driver(self._ledger, self._options.recipe, runner, self._facts, stop).run(tasks)

    def _work_on_ray(self, tasks: Sequence[Task], stop: StopRequest) -> None:
        set_ray_environment()
        from pipelines.runner.ray_cluster import RayRunner
        from pipelines.runner.ray_layout import living_nodes, plan_layout
        from pipelines.runner.ray_session import RaySession

        options = self._options
        with RaySession(options.num_workers or available_cores(), stop):
            nodes = list(living_nodes().values())
            layout = plan_layout(nodes, options.device, options.num_workers)
            self._facts = RunFacts("ray", layout.device)
            place = self._workplace(layout.device, is_shared=True)
            with RayRunner(place, layout, self._facts, stop) as runner:
                Driver(self._ledger, options.recipe, runner, self._facts, stop).run(tasks)

    def _workplace(self, device: str, *, is_shared: bool) -> Workplace | FerryPlace:
        """Where this run's workers work, wherever they are; its work folder is ready."""
        recipe = self._options.recipe
        weights = find_checkpoint(recipe.checkpoint)
        if not weights.is_relative_to(PRETRAINED_DIR):  # a name means the same everywhere
            recipe = replace(recipe, checkpoint=os.path.abspath(weights))
        run = secrets.token_hex(8)
        source, output = self._source.storage, self._output
        folders = (source.directory or Path(), output.directory or Path())
        place = Workplace(*folders, recipe, device, run)
        return ferried(place, source, output, is_shared=is_shared)

    def _clear_work_dir(self) -> None:
        self._output.remove_tree(WORK_DIR_NAME)

    def _explain_missing(self, missing: Sequence[str], stopped: bool) -> None:
        """Inputs have no row: somebody said stop, or else there is a fault in this program."""
        if stopped:
            raise Interrupted(
                f"stopped with {len(missing)} files to do; run the same command again to continue"
            )
        raise FatalProblem(
            f"expected a row in the manifest for every input, but {len(missing)} have none: "
            f"{', '.join(missing[:_NAMED_AT_MOST])}; please report this and run the same "
            "command again"
        )

    def _still_there(self, path: str) -> bool:
        """Whether an input outside this plan still exists, so that its row is worth keeping."""
        return self._source.storage.exists(path)

    def _conclude(self) -> None:
        """Write report and summary, and say where everything is."""
        totals = add_up(self._ledger.rows())
        report = self._write_report(totals)
        write_summary(
            self._books.folder,
            (self._source.storage.name, self._output.name),
            self._options.recipe,
            audiovae.__version__,
            totals,
            self._facts,
        )
        facts = self._facts
        if facts.files:
            sys.stdout.write(f"done: {counted(facts.files, 'file')}, {facts.pace}\n")
        sys.stdout.write(
            f"in all: {totals.ok} ok, {totals.error} failed, {totals.skipped} skipped\n"
            f"outputs: {one_line(self._output.name)}\n"
        )
        if totals.missed:
            sys.stdout.write(
                f"{counted(totals.missed, 'file')} could not have the rate or size that was asked "
                f"for; their rows in {MANIFEST_NAME} have a note\n"
            )
        if report is not None:
            sys.stdout.write(f"report: {one_line(f'{self._output.name}/{report.name}')}\n")

    def _write_report(self, totals: Totals) -> Path | None:
        """A report that fails does not fail the batch, whose outputs are all in place."""
        if not self._options.report:
            return None
        from pipelines.report import write_report

        try:
            return write_report(
                self._books.folder,
                self._source.title,
                (self._source.storage, self._output),
                self._options.recipe,
                self._ledger.rows,
                totals,
                self._facts,
            )
        except Exception as error:
            _logger.exception("report=failed")
            complain(f"could not write the report ({error}); see {self._output.name}/{LOG_NAME}")
            return None

    def _say_nothing_to_do(self) -> None:
        counts = self._ledger.counts()
        more = "".join(
            f", {counts[status]} {word}"
            for status, word in (("error", "failed"), ("skipped", "skipped"))
            if counts[status]
        )
        verb = "is" if counts["ok"] == 1 else "are"
        sys.stdout.write(f"nothing to do: {counted(counts['ok'], 'file')} {verb} done{more}\n")

    def _status(self) -> ExitStatus:
        """Name the failed inputs on standard error; the manifest implies the exit status."""
        failed = self._ledger.counts()["error"]
        for row in islice(self._ledger.rows("error"), _NAMED_AT_MOST):
            sys.stderr.write(f"failed: {one_line(row['path'])}: {row['error']}: {row['reason']}\n")
        if failed > _NAMED_AT_MOST:
            manifest = one_line(f"{self._output.name}/{MANIFEST_NAME}")
            sys.stderr.write(f"failed: and {failed - _NAMED_AT_MOST} more; see {manifest}\n")
        if failed and not self._options.allow_errors:
            return ExitStatus.FAILED_INPUTS
        return ExitStatus.DONE


class _LazySpanPlanner:
    """`audiovae.sources.plan_spans`, imported (with torch) when the first file needs it."""

    def __call__(self, info: AudioInfo) -> tuple[Span, ...]:
        from audiovae.sources import plan_spans

        return plan_spans(info)
