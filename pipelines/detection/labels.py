"""Labels of test files: which are anomalies."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from audiovae.commands import UsageProblem, one_line

_ANOMALOUS: Final = frozenset({"1", "true", "anomaly", "anomalous", "abnormal", "bad", "fault"})
_NORMAL: Final = frozenset({"0", "false", "normal", "good", "ok", "healthy"})


def labels_of(names: Sequence[str], said: Mapping[str, bool]) -> dict[str, bool]:
    """Which of the files named are anomalies, as far as a table of labels says.

    Rows that name none of them are counted on stderr: a slip of the pen, or a file left out.

    Args:
        names: Of the test files.
        said: From `read_anomaly_labels`.

    Raises:
        UsageProblem: If it has rows, and none names any of them.
    """
    found, unused = {}, set(said)
    for name in names:
        key = name if name in said else name.rpartition("/")[2]
        if key in said:
            found[name] = said[key]
            unused.discard(key)
    if said and not found:
        raise UsageProblem(
            f"--labels: expected names of test files, got none of them; write them as '{names[0]}'"
        )
    if unused:
        named = f"{len(unused)} rows name no test file, as '{one_line(min(unused))}'"
        sys.stderr.write(f"--labels: {named}\n")
    return found


def read_anomaly_labels(path: Path) -> dict[str, bool]:
    """Whether each file that a CSV file names is an anomaly.

    Args:
        path: With the columns `file` (path below the test directory, or name alone) and `label`
            (1 or anomaly, 0 or normal).

    Raises:
        UsageProblem: If it cannot be read, or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise UsageProblem(
                    f"--labels: expected the columns file and label, got "
                    f"{', '.join(reader.fieldnames or ()) or 'an empty file'} in {path}; mend it"
                )
            said = {row["file"]: _is_anomaly(row["label"], path) for row in reader}
    except UnicodeDecodeError:
        raise UsageProblem(
            f"--labels: expected a CSV file in UTF-8, got another encoding in {path}; "
            "save it as UTF-8"
        ) from None
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageProblem(
            f"--labels: expected a CSV file, got {reason} for {path}; check the path"
        ) from None
    if not said:
        raise UsageProblem(f"--labels: expected a row for each test file, got none in {path}")
    return said


def _is_anomaly(label: str | None, path: Path) -> bool:
    text = (label or "").strip().lower()
    if text in _ANOMALOUS:
        return True
    if text in _NORMAL:
        return False
    raise UsageProblem(
        f"--labels: expected 1 or anomaly, 0 or normal, got '{label}' in {path}; mend it"
    )
