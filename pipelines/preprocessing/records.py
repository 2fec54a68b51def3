"""Notes of finished shards, and rows of files that are in none, as text."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from audiovae.errors import ConfigError
from audiovae.training.shard_index import ShardRow
from pipelines.preprocessing.intake import Duplicate, LeftOut
from pipelines.runner.inputs import Found
from pipelines.runner.units import FileFailed

Row = dict[str, Any]


def format_note(rows: list[ShardRow], failed: list[FileFailed]) -> str:
    """What became of a shard, as text."""
    facts = {"rows": [asdict(row) for row in rows], "failed": [asdict(file) for file in failed]}
    return json.dumps(facts) + "\n"


def parse_note(text: str) -> tuple[list[ShardRow], list[FileFailed]]:
    """Read what `format_note` wrote."""
    facts = json.loads(text)
    rows = [ShardRow(**row) for row in facts["rows"]]
    return rows, [FileFailed(**file) for file in facts["failed"]]


def parse_left_out(text: str, place: str) -> list[Row]:
    """Read `left_out.jsonl`.

    Raises:
        ConfigError: If it is damaged.
    """
    try:
        return [dict(json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{place}: expected a row of JSON a line, got a damaged one ({error}); remove this file"
        ) from None


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
