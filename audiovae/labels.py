"""What class of sound a file is: what a CSV file says, else the name of its folder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from audiovae.errors import ConfigError

MANIFEST_NAME = "manifest.csv"
"""Beside audio files: columns `file` and `class`, and any others."""


def read_labels(path: Path) -> dict[str, str]:
    """Class by file name, of a CSV file with the columns `file` and `class`.

    Raises:
        ConfigError: If it cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if not {"file", "class"} <= set(columns):
                raise ConfigError(
                    f"{path}: expected the columns file and class, got "
                    f"{', '.join(columns) or 'an empty file'}; mend or remove it"
                )
            return {row["file"]: (row["class"] or "").strip() for row in reader}
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path}: expected a CSV file of labels, got {reason}; check the path"
        ) from None


def folder_labels(folder: Path) -> dict[str, str]:
    """Class by name of the files in a folder, by the manifest in it; empty without one."""
    manifest = folder / MANIFEST_NAME
    return read_labels(manifest) if manifest.is_file() else {}


def clip_labels(names: Sequence[str], source: Path, table: Path | None) -> tuple[str, ...]:
    """The class of each clip of a corpus.

    Args:
        names: Paths of the clips below `source`, with "/" between their parts.
        source: Directory of the corpus.
        table: CSV file with the columns `file` (path below `source`, or name alone) and `class`;
            None for what manifests beside the files say.

    Returns:
        For each clip what is said of it, else the name of its folder.
    """
    said = read_labels(table) if table else {}
    manifests: dict[PurePosixPath, dict[str, str]] = {}
    labels = []
    for name in names:
        path = PurePosixPath(name)
        if table is None and path.parent not in manifests:
            manifests[path.parent] = folder_labels(source / path.parent)
        beside = manifests.get(path.parent, {})
        found = said.get(name) or said.get(path.name) or beside.get(path.name)
        labels.append(found or path.parent.name or source.resolve().name)
    return tuple(labels)
