"""What a worker does with a unit. The same code runs in a thread here and in a Ray actor.

Outputs are written below the work folder and then renamed into place, so a run that dies
leaves nothing half-written among the outputs and nothing outside one folder to clean.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audiovae.errors import AudioVAEError, AudioWriteError
from pipelines.runner.recipe import Recipe
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
    from audiovae.transform import Transformer

WORK_DIR_NAME: Final = ".audiovae_work"
_FATAL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_TRIAL_BYTES: Final = 1 << 20

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker must know to begin; small, and can be pickled. Weights go by name or path."""

    root: Path
    output_dir: Path
    recipe: Recipe
    device: str

    @property
    def work_dir(self) -> Path:
        """Folder of everything unfinished."""
        return self.output_dir / WORK_DIR_NAME

    def open(self) -> Worker:
        """Load the model. Takes seconds, and imports torch.

        Raises:
            CheckpointError: If the model cannot be loaded.
        """
        import torch

        import audiovae
        from audiovae.transform import Transformer, TransformSettings

        torch.set_num_threads(1)  # bytes must not depend on how many cores there are
        recipe = self.recipe
        settings = TransformSettings(
            products=recipe.products,
            quality=recipe.quality,
            seed=recipe.seed,
            kbps=recipe.kbps,
            max_bytes=recipe.max_bytes,
            format=recipe.file_format,
        )
        model = audiovae.load_model(recipe.checkpoint)
        return Worker(self, Transformer(model, settings, self.device), model.name, model.id)


class Worker:
    """Turns units into outcomes; never raises for what a file or the disk did.

    Attributes:
        model_name: Name of the loaded model.
        model_id: Identity of its weights.
    """

    def __init__(
        self, place: Workplace, transformer: Transformer, model_name: str, model_id: str
    ) -> None:
        self._place = place
        self._transformer = transformer
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
        folder = self._folder(f"pack{unit.number}")
        sources = [self._source(task) for task in unit.tasks]
        drafts = [self._drafts(folder, index, task) for index, task in enumerate(unit.tasks)]
        reports = self._transformer.process_files(list(zip(sources, drafts, strict=True)))
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
        part = self._parts(unit.task)[unit.index]
        part.parent.mkdir(parents=True, exist_ok=True)
        report = self._transformer.process_span(self._source(unit.task), part, first, last)
        return Outcome(unit, (PartDone(unit.task.path, unit.index, report),))

    def _perform_assembly(self, unit: Assembly) -> Outcome:
        folder = self._folder(f"assembly{unit.number}")
        parts = self._parts(unit.task)
        drafts = self._drafts(folder, 0, unit.task)
        report = self._transformer.assemble(
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
                if error.errno in _FATAL_ERRNOS:
                    raise
                return failure(task.path, AudioWriteError(f"cannot place '{path}': {error}"))
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
        """Why no unit can succeed any more: the disk is full or cannot be written to."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in _FATAL_ERRNOS:
                return f"{os.strerror(cause.errno or 0)}: {self._place.output_dir}"
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, AudioWriteError):
            return _cannot_write(self._place.work_dir)
        return ""

    def _source(self, task: Task) -> Path:
        return self._place.root / task.path

    def _drafts(self, folder: Path, index: int, task: Task) -> dict[str, Path]:
        outputs = self._place.recipe.outputs_for(task.path)
        return {product: folder / f"{index}.{product}" for product, _ in outputs}

    def _folder(self, name: str) -> Path:
        folder = self._place.work_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _parts(self, task: Task) -> Sequence[Path]:
        name = hashlib.sha256(os.fsencode(task.path)).hexdigest()[:16]
        folder = self._place.work_dir / f"parts-{name}"
        return [folder / f"{index:05d}" for index in range(len(task.spans))]


def _cannot_write(folder: Path) -> str:
    """Why a file cannot be written in `folder`, "" if it can (libraries lose the error number)."""
    trial = folder / "trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(bytes(_TRIAL_BYTES))
        trial.unlink()
    except OSError as error:
        return f"{error.strerror}: {folder.parent}"
    return ""
