"""What a directory of shards remembers: what is in it, what was left out, what was being done.

    index.jsonl, left_out.jsonl              every input has its row in one of the two
    .audiovae_work/plan.jsonl                which clip goes where, written before any work
    .audiovae_work/finished/00007.npy.json   a note for each shard that is finished

Index and list are written at the end of a run, from the notes; a run that is killed leaves plan
and notes, and the next one begins with them. What index and notes say is believed of shards that
are there in their full size; clips of others count as new.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.training.shard_arrays import ArrayKind, arrays_of, lies_inside
from audiovae.training.shard_index import (
    DESCRIPTION_NAME,
    INDEX_NAME,
    ShardRow,
    ShardsDescription,
    format_description,
    format_rows,
    parse_description,
    parse_rows,
)
from pipelines.preprocessing.intake import LeftOut
from pipelines.preprocessing.records import Row, left_out_row, parse_left_out, parse_note
from pipelines.preprocessing.shard_plan import (
    format_plan,
    pack_of,
    parse_plan,
    shard_name,
    tasks_of,
)
from pipelines.runner.inputs import Found
from pipelines.runner.probing import in_order, threads_for
from pipelines.runner.storage import WORK_DIR_NAME, Storage
from pipelines.runner.units import FileFailed, Pack

LEFT_OUT_NAME: Final = "left_out.jsonl"
PLAN_NAME: Final = f"{WORK_DIR_NAME}/plan.jsonl"
NOTES_DIR: Final = f"{WORK_DIR_NAME}/finished"

_Identity = tuple[str, int, int]  # path, size, time: one state of one file


def describe(target: Storage, config: SpectrogramConfig, with_audio: bool) -> ShardsDescription:
    """What the shards in a directory are, or from now on will be.

    Raises:
        ConfigError: If they are of another spectrogram, or lack the waveforms.
    """
    text = target.read_text(DESCRIPTION_NAME)
    description = ShardsDescription(config, with_audio)
    if text is not None:
        place = f"{target.name}/{DESCRIPTION_NAME}"
        description = parse_description(text, place, config)
    if with_audio and not description.with_audio:
        raise ConfigError(
            f"{target.name}: expected shards with waveforms, got log-mels alone; "
            "leave out --with-audio or choose another --output-dir"
        )
    if text != format_description(description):  # there was none, or an older version's
        target.write_text(DESCRIPTION_NAME, format_description(description))
    return description


class ShardDirectory:
    """The memory of one directory of shards.

    Args:
        target: Where it lies.
        found: Every input, sorted by path.
        description: Of the shards, as `describe` gives it.
        deduplicate: Whether files that were left out as duplicates stay so.

    Attributes:
        rows: Clips that are in the shards, whole ones and parts of unfinished ones.
        packs: Shards that an earlier run planned and did not finish.
        num_lost: Clips of the index whose shards are damaged or missing.
    """

    def __init__(
        self,
        target: Storage,
        found: Sequence[Found],
        description: ShardsDescription,
        deduplicate: bool,
    ) -> None:
        self._target, self._description = target, description
        self._found = {_identity(entry): entry for entry in found}
        self._inputs = {entry.path: entry for entry in found}
        self._plan = parse_plan(target.read_text(PLAN_NAME) or "")
        place = f"{target.name}/{INDEX_NAME}"
        indexed = parse_rows(target.read_text(INDEX_NAME) or "", place)
        self._left_out: dict[str, Row] = {
            row["path"]: row
            for row in parse_left_out(
                target.read_text(LEFT_OUT_NAME) or "", f"{target.name}/{LEFT_OUT_NAME}"
            )
        }
        self.rows: list[ShardRow] = []
        finished = self._take_in(indexed, self._read_notes())
        self.packs = [
            pack
            for pack in (self._still_there(pack) for pack in self._plan)
            if pack.tasks and pack.number not in finished
        ]
        self._deduplicate = deduplicate

    def new_files(self) -> list[Found]:
        """Inputs that are neither in the shards, nor planned, nor settled otherwise."""
        known = {(row.path, row.size, row.mtime_ns) for row in self.rows}
        old = {row.path for row in self.rows if row.size < 0}  # of an index that knew no more
        planned = {
            (task.part.path, task.part.size, task.part.mtime_ns)
            for pack in self.packs
            for task in tasks_of(pack)
        }
        stored = {row.path for row in self.rows}
        return [
            entry
            for identity, entry in self._found.items()
            if identity not in known
            and identity not in planned
            and entry.path not in old
            and not self._is_settled(identity, stored)
        ]

    def add_to_plan(self, packs: Iterable[Pack]) -> None:
        """Write down what is going to be done, before it is begun."""
        self.packs += packs
        if self.packs:
            self._target.write_text(PLAN_NAME, format_plan(self.packs))

    @property
    def next_number(self) -> int:
        """Number of the next new shard."""
        numbers = [int(PurePosixPath(row.shard).stem) for row in self.rows]
        return max([*numbers, *(pack.number for pack in self._plan)], default=-1) + 1

    def leave_out(self, files: Iterable[LeftOut]) -> None:
        """Note why files are in no shard."""
        for file in files:
            if entry := self._inputs.get(file.path):  # gone, if it is an earlier run's
                self._left_out[file.path] = left_out_row(entry, file)

    def conclude(self, rows: Iterable[ShardRow], *, finished: bool) -> None:
        """Write the index and the list of what was left out.

        Args:
            rows: What this run added.
            finished: Whether nothing is left to do; else plan and notes stay.
        """
        self.rows = _whole_files([*self.rows, *rows])
        stored = {(row.path, row.size, row.mtime_ns) for row in self.rows}
        self._left_out = {
            path: row
            for path, row in sorted(self._left_out.items())
            if path in self._inputs and (path, row["size"], row["mtime_ns"]) not in stored
        }
        self._write_if_new(INDEX_NAME, format_rows(self.rows))
        lines = (json.dumps(row) + "\n" for row in self._left_out.values())
        self._write_if_new(LEFT_OUT_NAME, "".join(lines))
        if finished:
            if self._target.exists(PLAN_NAME):  # a plan without its notes would be done again
                self._target.write_text(PLAN_NAME, "")
            self._target.remove_tree(WORK_DIR_NAME)

    def left_out(self, status: str) -> list[Row]:
        """Rows of what was left out, for one reason."""
        return [row for row in self._left_out.values() if row["status"] == status]

    def _read_notes(self) -> dict[str, tuple[list[ShardRow], list[FileFailed]]]:
        """Rows and failures of each shard that has a note; a damaged one counts as none."""
        notes = {}
        for name in self._target.names(NOTES_DIR):
            note = parse_note(self._target.read_text(f"{NOTES_DIR}/{name}") or "")
            if note is not None and not name.startswith("."):
                notes[name.removesuffix(".json")] = note
        return notes

    def _take_in(
        self,
        indexed: Sequence[ShardRow],
        notes: dict[str, tuple[list[ShardRow], list[FileFailed]]],
    ) -> set[int]:
        """Believe what index and notes say of whole shards.

        Returns:
            Numbers of the shards that an earlier run finished and did not get to write into the
            index.
        """
        shards = {row.shard for row in indexed} | {name for name, note in notes.items() if note[0]}
        frames = self._frames_of(sorted(shards))
        notes = {name: note for name, note in notes.items() if not note[0] or all(frames[name])}
        # Of a shard that is planned, the note alone says what is in it: it may be half made again.
        unsure = {shard_name(pack.number) for pack in self._plan} | notes.keys()
        believed = (
            row
            for row in indexed
            if row.shard not in unsure
            and all(lies_inside(row, count, self._description) for count in frames[row.shard])
        )
        # Of a file that has lost a part nothing is left, so that all of it is read again.
        self.rows = _whole_files(believed)
        for rows, failed in notes.values():
            self.rows += rows
            self.leave_out(failed)
        self.num_lost = len({row.path for row in indexed} - {row.path for row in self.rows})
        return {int(PurePosixPath(name).stem) for name in notes}

    def _frames_of(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Frames of every array of some shards; 0 of one that is damaged or missing."""
        kinds = arrays_of(self._description)

        def frames(name: str) -> list[int]:
            return [self._num_frames(kind, f"{kind.folder}/{name}") for kind in kinds]

        counts = in_order(frames, names, threads_for(self._target))
        return dict(zip(names, counts, strict=True))

    def _num_frames(self, kind: ArrayKind, path: str) -> int:
        size = self._target.size(path)
        if size is None:
            return 0
        return kind.frames_of(self._target.read_start(path, kind.header_bytes), size)

    def _still_there(self, pack: Pack) -> Pack:
        """A planned shard without the files that have changed or gone since."""
        return pack_of(
            pack.number,
            (
                task
                for task in tasks_of(pack)
                if (task.part.path, task.part.size, task.part.mtime_ns) in self._found
            ),
        )

    def _is_settled(self, identity: _Identity, stored: set[str]) -> bool:
        path, size, mtime_ns = identity
        row = self._left_out.get(path)
        if row is None or (row["size"], row["mtime_ns"]) != (size, mtime_ns):
            return False
        if row["status"] == "duplicate":
            return self._deduplicate and row["original"] in stored
        return not row.get("retry", False)

    def _write_if_new(self, name: str, text: str) -> None:
        if (self._target.read_text(name) or "") != text:
            self._target.write_text(name, text)


def _whole_files(rows: Iterable[ShardRow]) -> list[ShardRow]:
    """Rows of the latest state of every file of which all parts are there, in shard order."""
    ordered = sorted(rows, key=lambda row: (len(row.shard), row.shard, row.first_frame))
    states: defaultdict[tuple[str, int, int], list[ShardRow]] = defaultdict(list)
    for row in ordered:
        states[row.path, row.size, row.mtime_ns].append(row)
    latest = {
        path: (path, size, mtime_ns)
        for (path, size, mtime_ns), parts in states.items()
        if sum(row.num_frames for row in parts) >= parts[0].file_frames
    }
    return [row for row in ordered if latest.get(row.path) == (row.path, row.size, row.mtime_ns)]


def _identity(entry: Found) -> _Identity:
    return entry.path, entry.size, entry.mtime_ns
