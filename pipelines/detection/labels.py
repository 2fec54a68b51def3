"""Labels of test files: which are anomalies."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from audiovae.commands import UsageProblem, one_line

_ANOMALOUS: Final = frozenset({"1", "true", "anomaly", "anomalous", "abnormal", "bad", "fault"})
_NORMAL: Final = frozenset({"0", "false", "normal", "good", "ok", "healthy"})


def read_anomaly_labels(path: Path, names: Sequence[str]) -> dict[str, bool]:
    """Which of the files named are anomalies, as far as a CSV file says.

    Rows that name none of them are counted on stderr: a slip of the pen, or a file left out.

    Args:
        path: With the columns `file` (path below the test directory, or name alone) and `label`
            (1 or anomaly, 0 or normal).
        names: Of the test files.

    Raises:
        UsageProblem: If it cannot be read, or names none of them.
    """
    said = _read(path)
    found, unused = {}, set(said)
    for name in names:
        key = name if name in said else name.rpartition("/")[2]
        if key in said:
            found[name] = said[key]
            unused.discard(key)
    if not found:
        raise UsageProblem(
            f"--labels: expected names of test files, got none of them in {path}; "
            f"write them as '{names[0]}'"
        )
    if unused:
        named = f"{len(unused)} rows name no test file, as '{one_line(min(unused))}'"
        sys.stderr.write(f"--labels: {named}\n")
    return found


def _read(path: Path) -> dict[str, bool]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise UsageProblem(
                    f"--labels: expected the columns file and label, got "
                    f"{', '.join(reader.fieldnames or ()) or 'an empty file'} in {path}; mend it"
                )
            return {row["file"]: _is_anomaly(row["label"], path) for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageProblem(
            f"--labels: expected a CSV file, got {error} for {path}; check the path"
        ) from None


def _is_anomaly(label: str | None, path: Path) -> bool:
    text = (label or "").strip().lower()
    if text in _ANOMALOUS:
        return True
    if text in _NORMAL:
        return False
    raise UsageProblem(
        f"--labels: expected 1 or anomaly, 0 or normal, got '{label}' in {path}; mend it"
    )
