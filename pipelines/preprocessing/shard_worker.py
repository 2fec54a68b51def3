"""What a worker does with a shard: reads its clips, writes its files, notes what is in them.

The note is placed last. It is what makes a shard count as finished, whatever happens afterwards.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioReadError
from audiovae.replacing import sync_to_disk
from audiovae.training.shard_arrays import LOG_MEL_DIR, WAVEFORM_DIR
from audiovae.training.shard_index import ShardRow
from pipelines.preprocessing.records import format_note
from pipelines.preprocessing.shard_directory import NOTES_DIR
from pipelines.preprocessing.shard_plan import ShardTask, shard_name, tasks_of
from pipelines.runner.storage import LocalStorage, Storage
from pipelines.runner.units import FileDone, FileFailed, Outcome, Pack, Unit, failure
from pipelines.runner.work_folder import remove_orphans

if TYPE_CHECKING:
    from audiovae.training.shard_writer import ShardWriter

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClipStored(FileDone):
    """A clip, or a part of one, that is in a shard; without a row, one that was only tried."""

    row: ShardRow | None


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """What a worker must know to begin; small, and can be pickled.

    Attributes:
        source: Where the audio lies.
        target: Where the shards go.
        config: The spectrogram.
        with_audio: Whether the waveforms are kept too.
    """

    source: Storage
    target: Storage
    config: SpectrogramConfig
    with_audio: bool

    @property
    def folders(self) -> tuple[Path, ...]:
        """What every worker must see, wherever it is."""
        places = (self.source.directory, self.target.directory)
        return tuple(place for place in places if place is not None)

    def open(self) -> ShardMaker:
        """Get ready to work. Imports torch."""
        import torch

        torch.set_num_threads(1)
        remove_orphans()
        return ShardMaker(self)


class ShardMaker:
    """Turns packs into shards; never raises for what a file or the disk did."""

    model_name = model_id = ""

    def __init__(self, place: ShardPlace) -> None:
        self._place = place

    def perform(self, unit: Unit) -> Outcome:
        """Make one shard."""
        assert isinstance(unit, Pack)
        try:
            return self._make(unit)
        except OSError as error:  # bad inputs are caught below: this is the output
            _logger.exception("shard=%d", unit.number)
            reason = error.strerror or str(error)
            return Outcome(unit, fatal=f"{reason}: {self._place.target.name}")

    def _make(self, pack: Pack) -> Outcome:
        from audiovae.training.shard_writer import ShardWriter

        place, name, tasks = self._place, shard_name(pack.number), tasks_of(pack)
        with place.target.drafts() as folder:
            drafts = {LOG_MEL_DIR: folder / LOG_MEL_DIR}
            if place.with_audio:
                drafts[WAVEFORM_DIR] = folder / WAVEFORM_DIR
            with ShardWriter(
                name, drafts[LOG_MEL_DIR], drafts.get(WAVEFORM_DIR), place.config
            ) as writer:
                results = tuple(self._add(writer, task) for task in tasks)
            if len(tasks) < tasks[0].shard_parts:
                return Outcome(pack, tuple(_as_tried(result) for result in results))
            stored = [r.row for r in results if isinstance(r, ClipStored) and r.row is not None]
            failed = [r for r in results if isinstance(r, FileFailed)]
            if stored:
                self._place_all(drafts, name)
            place.target.write_text(f"{NOTES_DIR}/{name}.json", format_note(stored, failed))
        return Outcome(pack, results)

    def _add(self, writer: ShardWriter, task: ShardTask) -> ClipStored | FileFailed:
        part = task.part
        try:
            with self._place.source.local_copy(part.path) as file:
                self._check_unchanged(file, task)
                row = writer.add(file, part)
        except AudioReadError as error:
            return failure(part.path, error)
        except OSError:
            raise
        except Exception as error:
            _logger.exception("path=%r status=error", part.path)
            return failure(part.path, error)
        from audiovae.reports import FileReport  # with torch

        report = FileReport(task.seconds, row.sample_rate, task.num_channels, 0.0, None, None, {})
        return ClipStored(part.path, (), report, row)

    def _check_unchanged(self, file: Path, task: ShardTask) -> None:
        """Refuse a file that is not the one of the plan: its parts would not fit together."""
        try:
            facts = os.stat(file)
        except OSError as error:
            raise AudioReadError(f"{file}: {error.strerror}; check the path") from error
        expected = (task.part.size, task.part.mtime_ns)
        is_local = isinstance(self._place.source, LocalStorage)
        found = (facts.st_size, facts.st_mtime_ns if is_local else expected[1])
        if found != expected:
            raise AudioReadError(
                f"{file}: expected the file as it was when the run began, got a changed one; "
                "run the same command again"
            )

    def _place_all(self, drafts: dict[str, Path], name: str) -> None:
        for folder, draft in drafts.items():
            sync_to_disk(draft)
            self._place.target.place(draft, f"{folder}/{name}")


def _as_tried(result: ClipStored | FileFailed) -> ClipStored | FileFailed:
    return replace(result, row=None) if isinstance(result, ClipStored) else result
