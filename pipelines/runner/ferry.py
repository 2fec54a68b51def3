"""Work on inputs or outputs below a URI: fetched, worked on here, uploaded, and deleted here.

Nothing of the work itself knows of it: the worker has a folder of this machine for an input
directory, and one for an output directory. Space there is bounded: the files of the units in
hand, and one long file whose next part may come to the same worker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from audiovae.errors import AudioReadError, AudioWriteError
from pipelines.runner.remote import RemoteStorage
from pipelines.runner.storage import Storage
from pipelines.runner.units import (
    Assembly,
    FileDone,
    Outcome,
    Pack,
    Part,
    PartDone,
    Performer,
    Task,
    Unit,
    UnitResult,
    failure,
)
from pipelines.runner.work_folder import WorkFolder, remove_orphans
from pipelines.runner.worker import Workplace

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FerryPlace:
    """A workplace of which one side or both lie below a URI; it can be pickled.

    Attributes:
        place: The workplace; its folders count only where they are on this machine.
        source: Where the inputs lie.
        target: Where the outputs go.
        is_shared: Whether others may work on parts of the same file.
    """

    place: Workplace
    source: Storage
    target: Storage
    is_shared: bool

    @property
    def folders(self) -> tuple[Path, ...]:
        """What every worker must see, wherever it is."""
        source = () if self.source.directory is None else (self.source.directory,)
        return source if self.target.directory is None else (*source, self.place.work_dir)

    def open(self) -> FerryWorker:
        """Load the model, and make the folders of this machine."""
        remove_orphans()
        stage = WorkFolder()
        place = replace(
            self.place,
            root=self.source.directory or stage.path / "inputs",
            output_dir=self.target.directory or stage.path / "outputs",
        )
        place.prepare()
        return FerryWorker(self, place, place.open(), stage)


def ferried(
    place: Workplace, source: Storage, target: Storage, *, is_shared: bool
) -> Workplace | FerryPlace:
    """A workplace with its work folder made, and with a ferry if it needs one."""
    if target.directory is not None:
        place.prepare()
    if source.directory is not None and target.directory is not None:
        return place
    return FerryPlace(place, source, target, is_shared)


class FerryWorker:
    """A worker with a ferry before and behind it. See `units.Performer`."""

    def __init__(
        self,
        ferry: FerryPlace,
        place: Workplace,
        worker: Performer,
        stage: WorkFolder,
    ) -> None:
        self._place, self._worker = place, worker
        self._inputs = _Inputs(ferry.source, place.root)
        self._target = ferry.target if isinstance(ferry.target, RemoteStorage) else None
        self._is_shared = ferry.is_shared
        self._stage = stage
        self.model_name, self.model_id = worker.model_name, worker.model_id

    def __del__(self) -> None:
        """Remove the folders of this machine."""
        self._stage.close()

    def perform(self, unit: Unit) -> Outcome:
        """Do one unit of work."""
        try:
            return self._perform(unit)
        except OSError as error:  # of a file, or of the store, it would have been caught below
            _logger.exception("unit=%d", unit.number)
            return Outcome(unit, fatal=f"{error.strerror or error}: {self._stage.path}")

    def _perform(self, unit: Unit) -> Outcome:
        results: list[UnitResult] = []
        tasks: list[Task] = []
        with ExitStack() as stack:
            for task in unit.tasks:
                try:
                    held = self._inputs.held(task.path, keep=isinstance(unit, Part))
                    stack.enter_context(held)
                    self._fetch_parts(unit)
                except AudioReadError as error:
                    results.append(failure(task.path, error))
                else:
                    tasks.append(task)
            if not tasks:
                return Outcome(unit, tuple(results))
            smaller = Pack(unit.number, tuple(tasks)) if isinstance(unit, Pack) else unit
            outcome = self._worker.perform(smaller)
            results += [self._deliver(unit, result) for result in outcome.results]
        return Outcome(unit, tuple(results), outcome.fatal)

    def _fetch_parts(self, unit: Unit) -> None:
        """Get the parts of a long file that others have made."""
        if self._target is None or not isinstance(unit, Assembly):
            return
        for part in self._place.part_files(unit.task):
            if not part.exists():
                part.parent.mkdir(parents=True, exist_ok=True)
                self._target.fetch(self._path_of(part), part)

    def _deliver(self, unit: Unit, result: UnitResult) -> UnitResult:
        """Upload what a result says is in place."""
        if self._target is None:
            return result
        try:
            if isinstance(result, FileDone):
                for output in result.outputs:
                    self._target.place(self._place.output_dir / output.path, output.path)
            if isinstance(result, PartDone) and self._is_shared:
                part = self._place.part_files(unit.tasks[0])[result.index]
                self._target.place(part, self._path_of(part))
        except AudioWriteError as error:
            return failure(result.path, error)
        return result

    def _path_of(self, part: Path) -> str:
        return part.relative_to(self._place.output_dir).as_posix()


@dataclass(slots=True)
class _Copy:
    """A downloaded file, or one on its way."""

    users: int = 0
    is_here: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Inputs:
    """Local copies of remote files: each is downloaded once, however many threads use it."""

    def __init__(self, source: Storage, root: Path) -> None:
        self._source = source if isinstance(source, RemoteStorage) else None
        self._root = root
        self._copies: dict[str, _Copy] = {}
        self._kept = ""
        self._lock = threading.Lock()

    @contextmanager
    def held(self, path: str, *, keep: bool) -> Iterator[None]:
        """Context in which the copy exists.

        Args:
            path: Of the input.
            keep: Whether it is likely to be wanted again; the last such file stays.

        Raises:
            AudioReadError: If it cannot be downloaded.
        """
        if self._source is None:
            yield
            return
        with self._lock:
            copy = self._copies.setdefault(path, _Copy())
            copy.users += 1
        try:
            with copy.lock:
                if not copy.is_here:
                    (self._root / path).parent.mkdir(parents=True, exist_ok=True)
                    self._source.fetch(path, self._root / path)
                    copy.is_here = True
            yield
        finally:
            with self._lock:
                copy.users -= 1
                if keep and self._kept != path:
                    self._kept, path = path, self._kept
                elif not keep and self._kept == path:
                    self._kept = ""
                self._drop(path)

    def _drop(self, path: str) -> None:
        """Delete a copy that nobody uses and nobody asked to keep."""
        copy = self._copies.get(path)
        if copy is not None and not copy.users and path != self._kept:
            del self._copies[path]
            (self._root / path).unlink(missing_ok=True)
