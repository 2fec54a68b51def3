"""What a worker does with a unit. The same code runs in a thread here and in a Ray actor.

Outputs are written below the work folder of the run and then renamed into place, so a run that
dies leaves nothing half-written among the outputs and nothing outside one folder to clean. That
folder is also the worker's licence: a worker that outlives its run (its driver was killed, its
node was cut off) finds it gone, and can place nothing among the outputs of the next run.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audiovae.errors import AudioVAEError, AudioWriteError, CheckpointError
from pipelines.runner.recipe import Processor, Recipe, weights_identity
from pipelines.runner.storage import WORK_DIR_NAME
from pipelines.runner.units import (
    Assembly,
    FileDone,
    FileFailed,
    Outcome,
    Output,
    Pack,
    Part,
    PartDone,
    Task,
    Unit,
    failure,
)

if TYPE_CHECKING:
    from audiovae.reports import FileReport

_FATAL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_TRIAL_BYTES: Final = 1 << 20

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker must know to begin; small, and can be pickled. Weights go by name or path.

    `run` names the run among all that ever write to `output_dir`.
    """

    root: Path
    output_dir: Path
    recipe: Recipe
    device: str
    run: str = ""

    @property
    def work_dir(self) -> Path:
        """Folder of everything unfinished."""
        return self.output_dir / WORK_DIR_NAME / self.run

    @property
    def folders(self) -> tuple[Path, ...]:
        """What every worker must see, wherever it is."""
        return self.root, self.work_dir

    def part_files(self, task: Task) -> Sequence[Path]:
        """Where the parts of a long file lie until they are put together."""
        name = hashlib.sha256(os.fsencode(task.path)).hexdigest()[:16]
        folder = self.work_dir / f"parts-{name}"
        return [folder / f"{index:05d}" for index in range(len(task.spans))]

    def prepare(self) -> None:
        """Make the work folder: once, before any worker begins."""
        self.work_dir.mkdir(parents=True, exist_ok=True)

    def open(self) -> Worker:
        """Load the model. Takes seconds, and imports torch.

        Raises:
            CheckpointError: If the model cannot be loaded, or is not the one that was planned with.
        """
        import torch

        import audiovae

        torch.set_num_threads(1)  # bytes must not depend on how many cores there are
        recipe = self.recipe
        if weights_identity(recipe.checkpoint) != recipe.weights:
            raise CheckpointError(
                f"{recipe.checkpoint}: expected the weights this run was started with, found "
                "others; give every machine the same file"
            )
        model = audiovae.load_model(recipe.checkpoint, self.device)
        return Worker(self, recipe.processor(model), model.name, model.id)


class Worker:
    """Turns units into outcomes; never raises for what a file or the disk did.

    Attributes:
        model_name: Name of the loaded model.
        model_id: Identity of its weights.
    """

    def __init__(
        self, place: Workplace, processor: Processor, model_name: str, model_id: str
    ) -> None:
        self._place = place
        self._processor = processor
        self.model_name = model_name
        self.model_id = model_id

    def perform(self, unit: Unit) -> Outcome:
        """Do one unit of work."""
        started = time.perf_counter()
        try:
            outcome = self._dispatch(unit)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 (a bad file must not end the batch)
            outcome = self._blame(unit, error)
        _logger.info(
            "unit=%d kind=%s files=%d audio_seconds=%.1f wall_seconds=%.2f",
            unit.number,
            type(unit).__name__.lower(),
            len(unit.tasks),
            unit.seconds,
            time.perf_counter() - started,
        )
        return outcome

    def _dispatch(self, unit: Unit) -> Outcome:
        if isinstance(unit, Pack):
            return self._perform_pack(unit)
        if isinstance(unit, Part):
            return self._perform_part(unit)
        return self._perform_assembly(unit)

    def _perform_pack(self, unit: Pack) -> Outcome:
        folder = self._new_folder(unit)
        sources = [self._source(task) for task in unit.tasks]
        drafts = [self._drafts(folder, index, task) for index, task in enumerate(unit.tasks)]
        reports = self._processor.process_files(list(zip(sources, drafts, strict=True)))
        results: list[FileDone | FileFailed] = []
        for task, files, report in zip(unit.tasks, drafts, reports, strict=True):
            if isinstance(report, AudioVAEError):
                if fatal := self._why_fatal(report):
                    return Outcome(unit, fatal=fatal)
                results.append(failure(task.path, report))
            else:
                results.append(self._deliver(task, files, report))
        shutil.rmtree(folder, ignore_errors=True)
        return Outcome(unit, tuple(results))

    def _perform_part(self, unit: Part) -> Outcome:
        first, last = unit.task.spans[unit.index]
        folder = self._new_folder(unit)
        report = self._processor.process_span(self._source(unit.task), folder / "part", first, last)
        part = self._place.part_files(unit.task)[unit.index]
        part.parent.mkdir(exist_ok=True)
        os.replace(folder / "part", part)
        shutil.rmtree(folder, ignore_errors=True)
        return Outcome(unit, (PartDone(unit.task.path, unit.index, report),))

    def _perform_assembly(self, unit: Assembly) -> Outcome:
        folder = self._new_folder(unit)
        parts = self._place.part_files(unit.task)
        drafts = self._drafts(folder, 0, unit.task)
        report = self._processor.assemble(
            self._source(unit.task), parts, list(unit.reports), drafts
        )
        result = self._deliver(unit.task, drafts, report)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(parts[0].parent, ignore_errors=True)
        return Outcome(unit, (result,))

    def _deliver(
        self, task: Task, drafts: Mapping[str, Path], report: FileReport
    ) -> FileDone | FileFailed:
        """Rename the finished drafts of a file into their places."""
        outputs = []
        for product, path in self._place.recipe.outputs_for(task.path):
            destination = self._place.output_dir / path
            try:
                size = drafts[product].stat().st_size
                destination.parent.mkdir(parents=True, exist_ok=True)
                os.replace(drafts[product], destination)
            except OSError as error:
                if self._why_fatal(error):
                    raise
                problem = AudioWriteError(f"cannot place '{path}': {error.strerror}")
                return failure(task.path, problem)
            outputs.append(Output(product, path, size))
        return FileDone(task.path, tuple(outputs), report)

    def _blame(self, unit: Unit, error: BaseException) -> Outcome:
        """An exception to failed files; the files of a pack are tried alone to find the culprit."""
        if fatal := self._why_fatal(error):
            return Outcome(unit, fatal=fatal)
        paths = ", ".join(repr(task.path) for task in unit.tasks[:3])
        _logger.error("unit=%d paths=%s", unit.number, paths, exc_info=error)
        if isinstance(unit, Pack) and len(unit.tasks) > 1:
            alone = [self.perform(Pack(unit.number, (task,))) for task in unit.tasks]
            fatal = next((outcome.fatal for outcome in alone if outcome.fatal), "")
            return Outcome(unit, tuple(r for o in alone for r in o.results), fatal)
        return Outcome(unit, tuple(failure(task.path, error) for task in unit.tasks))

    def _why_fatal(self, error: BaseException) -> str:
        """Why no unit can succeed any more: the disk is full, or a whole directory is gone."""
        for folder in self._place.folders:
            if not folder.is_dir():
                return f"expected '{folder}' to stay, found it gone (deleted, unmounted or reused)"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in _FATAL_ERRNOS:
                return f"{os.strerror(cause.errno or 0)}: {self._place.output_dir}"
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, AudioWriteError):
            return _cannot_write(self._place)
        return ""

    def _source(self, task: Task) -> Path:
        return self._place.root / task.path

    def _drafts(self, folder: Path, index: int, task: Task) -> dict[str, Path]:
        outputs = self._place.recipe.outputs_for(task.path)
        return {product: folder / f"{index}.{product}" for product, _ in outputs}

    def _new_folder(self, unit: Unit) -> Path:
        """A folder for this attempt at a unit: another worker may still be at an earlier one."""
        return Path(tempfile.mkdtemp(prefix=f"{unit.number}-", dir=self._place.work_dir))


def _cannot_write(place: Workplace) -> str:
    """Why no file can be written there, "" if it can (libraries lose the error number)."""
    trial = place.work_dir / f"trial-{secrets.token_hex(8)}"
    try:
        trial.write_bytes(bytes(_TRIAL_BYTES))
        trial.unlink()
    except OSError as error:
        return f"{error.strerror}: {place.output_dir}"
    return ""
