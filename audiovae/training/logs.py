"""Training logs as CSV files that a killed and resumed run continues."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from audiovae.replacing import replacing


class CsvLog:
    """A CSV file with a row a step; a resumed run drops the rows after its step."""

    def __init__(self, path: Path, step: int) -> None:
        """Continue the file after `step`; 0 starts a new one."""
        self._path = path
        self._columns: list[str] = []
        self.last_step = 0
        """Step of the last row, 0 if there is none."""
        rows = _whole_rows(path, step) if step and path.is_file() else []
        if not rows:
            path.unlink(missing_ok=True)
            return
        self._columns = list(rows[0])
        self.last_step = int(rows[-1]["step"])
        self._rewrite(rows)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Append a row; a column that is new stays empty in the rows before."""
        new = [name for name in ("step", *row) if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite(_whole_rows(self._path, step - 1) if self._path.is_file() else [])
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writerow({"step": step, **{k: f"{v:.6g}" for k, v in row.items()}})
        self.last_step = step

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Write the whole file, atomically."""
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self._path) as draft:
            draft.write_text(content.getvalue(), encoding="utf-8", newline="")


def _whole_rows(path: Path, step: int) -> list[dict[str, str]]:
    """Rows up to `step`, without one that a kill cut short."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    rows = csv.DictReader(whole.decode("utf-8").splitlines())
    return [row for row in rows if row["step"].isdigit() and int(row["step"]) <= step]
