"""Notes of finished shards, and rows of files that are in none, as text."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final

from audiovae.errors import ConfigError
from audiovae.training.shard_index import ShardRow, parse_row
from pipelines.preprocessing.intake import Duplicate, LeftOut
from pipelines.runner.inputs import Found
from pipelines.runner.units import FileFailed

Row = dict[str, Any]
_IDENTITY: Final = frozenset({"path", "size", "mtime_ns"})
_NEEDED: Final = {
    "duplicate": _IDENTITY | {"original"},
    "error": _IDENTITY | {"error", "reason"},
    "skipped": _IDENTITY,
}
"""What a row of each status says at least."""


def format_note(rows: list[ShardRow], failed: list[FileFailed]) -> str:
    """What became of a shard, as text."""
    facts = {"rows": [asdict(row) for row in rows], "failed": [asdict(file) for file in failed]}
    return json.dumps(facts) + "\n"


def parse_note(text: str) -> tuple[list[ShardRow], list[FileFailed]] | None:
    """Read what `format_note` wrote; None if that is damaged."""
    try:
        facts = json.loads(text)
        rows = [parse_row(row) for row in facts["rows"]]
        return rows, [FileFailed(**file) for file in facts["failed"]]
    except (ValueError, TypeError, KeyError):
        return None


def parse_left_out(text: str, place: str) -> list[Row]:
    """Read `left_out.jsonl`.

    Raises:
        ConfigError: If it is damaged.
    """
    try:
        rows = [dict(json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError):
        rows = [{}]
    if any(not _is_complete(row) for row in rows):
        raise ConfigError(
            f"{place}: expected a row of JSON a line, got a damaged one; remove this file"
        )
    return rows


def _is_complete(row: Row) -> bool:
    needed = _NEEDED.get(str(row.get("status")))
    return needed is not None and needed <= row.keys()


def left_out_row(entry: Found, file: LeftOut) -> Row:
    """The row of a file that is in no shard."""
    row: Row = {"path": entry.path, "size": entry.size, "mtime_ns": entry.mtime_ns}
    if isinstance(file, Duplicate):
        return row | {"status": "duplicate", "original": file.original}
    if isinstance(file, FileFailed):
        return row | {
            "status": "error",
            "error": file.kind,
            "reason": file.reason,
            "retry": file.retry,
        }
    return row | {"status": "skipped", "reason": file.reason}
