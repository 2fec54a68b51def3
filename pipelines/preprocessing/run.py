"""From INPUT to shards: survey, intake, plan, work, index."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from audiovae.commands import Interrupted, counted
from audiovae.config import SpectrogramConfig
from pipelines.preprocessing.intake import set_duplicates_aside, take_in
from pipelines.preprocessing.shard_directory import ShardDirectory, describe
from pipelines.preprocessing.shard_plan import pack_of, plan_shards, tasks_of
from pipelines.preprocessing.shard_worker import ClipStored, ShardPlace
from pipelines.runner.desk import open_desk
from pipelines.runner.executor import Executor, choose_executor, set_ray_environment
from pipelines.runner.inputs import locate, survey
from pipelines.runner.local import LocalRunner, available_cores
from pipelines.runner.progress import Progress, Tally
from pipelines.runner.stopping import FatalProblem, LogFile, StopRequest
from pipelines.runner.storage import open_storage, require_shared
from pipelines.runner.summary import RunFacts
from pipelines.runner.units import FileFailed, Outcome, Pack, Runner
from pipelines.runner.worklist import BLAME

if TYPE_CHECKING:
    from audiovae.training.shard_index import ShardRow

LOG_NAME: Final = "preprocess.log"
_POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class PreprocessOptions:
    """What the command line says."""

    input: str
    output: str
    config: SpectrogramConfig
    with_audio: bool = False
    deduplicate: bool = False
    executor: Executor = "auto"
    num_workers: int | None = None


@dataclass(frozen=True, slots=True)
class PreprocessReport:
    """What is in the shards after a run, and what it did.

    Attributes:
        written: Clips that this run added.
        known: Clips that were there already.
        duplicates: Files left out because their bytes are there under another name.
        skipped: Files that are no audio and do not claim to be.
        failed: Path and reason of every file that could not be read.
    """

    written: int
    known: int
    duplicates: int
    skipped: int
    failed: tuple[tuple[str, str], ...]


def run_preprocess(options: PreprocessOptions) -> PreprocessReport:
    """Make shards of a whole directory of audio.

    Raises:
        UsageProblem: If the command line asks for something that cannot be.
        ConfigError: If the shards that are there do not fit.
        FatalProblem: If it cannot go on; a rerun continues it.
        Interrupted: If it was asked to stop; a rerun continues it.
    """
    source, target = locate(options.input), open_storage(options.output)
    found = survey(source, target)
    with (
        StopRequest() as stop,
        open_desk(target, source.storage.name, (LOG_NAME,)) as desk,
        LogFile(desk.folder / LOG_NAME),
    ):
        description = describe(target, options.config, options.with_audio)
        directory = ShardDirectory(target, found, description, options.deduplicate)
        if directory.num_lost:
            sys.stderr.write(
                f"{counted(directory.num_lost, 'clip')} of shards that are damaged or missing: "
                "made again, where the file is still there\n"
            )
        known = {row.path for row in directory.rows}
        place = ShardPlace(source.storage, target, options.config, description.with_audio)
        work = _Work(directory, place, options)
        work.plan()
        try:
            work.do(stop)
        except Interrupted:
            directory.conclude(work.rows, finished=False)
            raise
        with stop.held():
            directory.conclude(work.rows, finished=not stop.requested)
        if stop.requested:
            raise Interrupted("stopped; run the same command again to continue")
        return _report(directory, known)


def _report(directory: ShardDirectory, known: set[str]) -> PreprocessReport:
    stored = {row.path for row in directory.rows}
    failed = directory.left_out("error")
    return PreprocessReport(
        written=len(stored - known),
        known=len(stored & known),
        duplicates=len(directory.left_out("duplicate")),
        skipped=len(directory.left_out("skipped")),
        failed=tuple((row["path"], f"{row['error']}: {row['reason']}") for row in failed),
    )


class _Work:
    """The work of one run.

    Attributes:
        rows: Of the clips that were stored so far.
    """

    def __init__(
        self, directory: ShardDirectory, place: ShardPlace, options: PreprocessOptions
    ) -> None:
        self._directory = directory
        self._place = place
        self._options = options
        self.rows: list[ShardRow] = []

    def plan(self) -> None:
        """Look at what is new, and write down where it goes."""
        directory, place = self._directory, self._place
        clips, left_out = take_in(directory.new_files(), place.source, place.config)
        if self._options.deduplicate:
            clips, duplicates = set_duplicates_aside(clips, directory.rows, place.source)
            left_out += duplicates
        directory.leave_out(left_out)
        directory.add_to_plan(plan_shards(clips, directory.next_number))

    def do(self, stop: StopRequest) -> None:
        """Make every shard of the plan."""
        packs = self._directory.packs
        if not packs:
            return
        num_workers = self._options.num_workers or available_cores()
        load = sum(pack.seconds for pack in packs)
        choice = choose_executor(self._options.executor, load, num_workers)
        sys.stderr.write(f"executor={choice.executor} because={choice.why!r}\n")
        facts = RunFacts(choice.executor, "cpu", num_workers)
        with ExitStack() as stack:
            runner: Runner
            if choice.executor == "local":
                runner = stack.enter_context(LocalRunner(self._place.open(), num_workers))
            else:
                require_shared(self._place.source, self._place.target)
                set_ray_environment()
                from pipelines.runner.ray_cluster import RayRunner
                from pipelines.runner.ray_layout import Layout
                from pipelines.runner.ray_session import RaySession

                stack.enter_context(RaySession(num_workers, stop))
                layout = Layout("cpu", asked=self._options.num_workers)
                runner = stack.enter_context(RayRunner(self._place, layout, facts, stop))
            self._loop(runner, packs, stop)

    def _loop(self, runner: Runner, packs: list[Pack], stop: StopRequest) -> None:
        waiting = packs[::-1]
        in_flight = 0
        files = len({task.path for pack in packs for task in pack.tasks})
        tally = Tally(sum(pack.seconds for pack in packs), files)
        with Progress(tally, sys.stderr) as progress, stop.held():
            while (waiting and not stop.requested) or (in_flight and not stop.expired):
                while waiting and in_flight < runner.capacity and not stop.requested:
                    runner.submit(waiting.pop())
                    in_flight += 1
                outcome = runner.next_outcome(_POLL_SECONDS)
                progress.tick()
                if outcome is not None:
                    in_flight -= 1
                    waiting += self._book(outcome, tally)

    def _book(self, outcome: Outcome, tally: Tally) -> list[Pack]:
        """Take in what became of a shard; returns it, if it has to be made once more."""
        if outcome.fatal:
            raise FatalProblem(f"{outcome.fatal}; mend that and run the same command again")
        assert isinstance(outcome.unit, Pack)
        failed = [result for result in outcome.results if isinstance(result, FileFailed)]
        stored = [result.row for result in outcome.results if isinstance(result, ClipStored)]
        self._directory.leave_out(failed)
        if None in stored:  # a worker died, and every file was tried alone: now without culprits
            culprits = {result.path for result in failed if result.kind == BLAME}
            tasks = tasks_of(outcome.unit)
            return [pack_of(outcome.unit.number, (t for t in tasks if t.path not in culprits))]
        self.rows += [row for row in stored if row is not None]
        tally.done_seconds += outcome.unit.seconds
        tally.done_files += len(outcome.results)
        tally.failed_files += len(failed)
        return []
