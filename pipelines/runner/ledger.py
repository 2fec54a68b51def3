"""The ledger: `manifest.jsonl`, one line of JSON for every input, one writer.

While a batch runs, lines are appended as results come: first a `started` line for each file of
a unit (from then on its outputs are ours to replace), then one with its result. The last line
of a path counts and a torn last line is dropped, so whatever kills the run, the next one knows
what is done. At the end the file is rewritten, atomically, with one line an input in plan order.

A row is *settled*, so that its file is not done again, if size, modification time and recipe
are unchanged and either all outputs are there in their recorded size, or the file was skipped,
or its content was refused. Other errors (memory, permissions, an output in the way) are tried
again. A million inputs cost some 400 bytes each here, most of them the paths themselves.
"""

from __future__ import annotations

import io
import json
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from heapq import merge
from itertools import pairwise
from types import TracebackType
from typing import Final, cast

from audiovae.replacing import replacing
from pipelines.runner.desk import MANIFEST_NAME, Books
from pipelines.runner.inputs import Found
from pipelines.runner.rows import Row, is_unchanged, listed_outputs, numbers, parse_line
from pipelines.runner.units import FileDone, FileFailed, FileSkipped

FileResult = FileDone | FileFailed | FileSkipped

_NOWHERE: Final = -1
_NONE, _OK, _ERROR, _SKIPPED = range(4)
_CODES: Final = {"ok": _OK, "error": _ERROR, "skipped": _SKIPPED}

_logger = logging.getLogger(__name__)


class Ledger:
    """The rows of one output directory, indexed by position in the plan.

    Args:
        books: Keeps the manifest, and knows which outputs are there.
        found: The plan: every input, sorted by path.
        recipe_key: Identity of what is done to every file.
        same_root: Whether the previous run was on the same input. If not, a row is believed only
            if its file's size and time fit: it may be about another file.

    Attributes:
        num_damaged: Lines of the manifest that cannot be read.
    """

    def __init__(
        self, books: Books, found: Sequence[Found], recipe_key: str, *, same_root: bool
    ) -> None:
        self._books = books
        self._path = books.folder / MANIFEST_NAME
        self._found = found
        self._recipe_key = recipe_key
        self._same_root = same_root
        self._index = {entry.path: position for position, entry in enumerate(found)}
        self._offsets = array("q", [_NOWHERE]) * len(found)
        self._codes = bytearray(len(found))
        self._known: dict[str, tuple[str, ...]] = {}
        self._elsewhere: dict[str, int] = {}  # inputs of other runs on the same root
        self._num_fitting = 0
        self.num_damaged = 0
        self._num_lines = 0
        self._end = 0
        self._file: io.FileIO | None = None
        self._read()

    # --- what is known -----------------------------------------------------------------

    def pending(self) -> Iterator[Found]:
        """Inputs without a settled row, in plan order."""
        return (entry for entry, code in zip(self._found, self._codes, strict=True) if not code)

    def known_outputs(self, path: str) -> tuple[str, ...]:
        """Outputs that an earlier run made, or may have made, for a pending input."""
        return self._known.get(path, ())

    def fits_the_plan(self) -> bool:
        """Whether most rows of inputs of the plan say their size and time, or there are no rows.

        So it is when a folder has been moved or renamed since, and not when it is another one.
        """
        known = sum(offset != _NOWHERE for offset in self._offsets)
        return not self._num_lines or 0 < known <= 2 * self._num_fitting

    def counts(self) -> dict[str, int]:
        """Number of settled rows by status."""
        return {status: self._codes.count(code) for status, code in _CODES.items()}

    def missing(self) -> list[str]:
        """Inputs of the plan that have no settled row."""
        return [entry.path for entry in self.pending()]

    def rows(self, status: str | None = None) -> Iterator[Row]:
        """The settled rows of the plan, in plan order, read from the disk one by one."""
        with self._path.open("rb") as file:
            for offset, code in zip(self._offsets, self._codes, strict=True):
                if code and (status is None or code == _CODES[status]):
                    file.seek(offset)
                    yield json.loads(file.readline())

    # --- writing -----------------------------------------------------------------------

    def __enter__(self) -> Ledger:
        """Open the manifest for appending, after its last whole line."""
        self._file = io.FileIO(self._path, "ab")  # unbuffered: what is written is written
        if self._file.tell() > self._end:
            self._file.truncate(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Close the manifest."""
        if self._file is not None:
            self._file.close()

    def start(self, outputs: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """Note, before work begins, the outputs that each path is going to have."""
        rows = []
        for path, planned in outputs:
            self._offsets[self._index[path]] = _NOWHERE
            self._known[path] = tuple(dict.fromkeys((*self.known_outputs(path), *planned)))
            rows.append(self._row(path, "started") | {"earlier_outputs": self._known[path]})
        self._append(rows)
        self._books.flush()

    def record(self, results: Iterable[FileResult]) -> int:
        """Append the results of files of the plan; each file has exactly one.

        A row that says what the last run's row says (the same refusal again) stays where it is.

        Returns:
            How many rows are new.
        """
        new_rows = []
        for result in results:
            position = self._index[result.path]
            if self._codes[position]:
                raise RuntimeError(f"a second result for {result.path!r}")
            row = self._result_row(result)
            self._codes[position] = _CODES[row["status"]]
            if self._offsets[position] == _NOWHERE or self._row_at(self._offsets[position]) != row:
                new_rows.append(row)
        for row, offset in zip(new_rows, self._append(new_rows), strict=True):
            self._offsets[self._index[row["path"]]] = offset
        return len(new_rows)

    def compact(self, keep_elsewhere: Callable[[str], bool]) -> bool:
        """Rewrite the manifest in plan order, if it is not already so.

        Args:
            keep_elsewhere: Whether to keep the row of a path that is not in this plan.

        Returns:
            Whether the file changed.
        """
        self._elsewhere = {p: o for p, o in self._elsewhere.items() if keep_elsewhere(p)}
        num_rows = len(self._found) + len(self._elsewhere)
        if num_rows == self._num_lines and all(
            before < after for (_, before), (_, after) in pairwise(self._final_order())
        ):
            return False
        self._num_lines = self._end = 0
        with replacing(self._path, durable=True) as draft:
            with self._path.open("rb") as source, draft.open("wb") as target:
                for path, offset in self._final_order():
                    source.seek(offset)
                    line = source.readline()
                    target.write(line)
                    if (position := self._index.get(path)) is not None:
                        self._offsets[position] = self._end
                    self._end += len(line)
                    self._num_lines += 1
        return True

    # --- inside ------------------------------------------------------------------------

    def _final_order(self) -> Iterator[tuple[str, int]]:
        """Path and offset of every row that stays, by path."""
        planned = ((e.path, offset) for e, offset in zip(self._found, self._offsets, strict=True))
        return merge(planned, sorted(self._elsewhere.items()))

    def _row_at(self, offset: int) -> Row:
        with self._path.open("rb") as file:
            file.seek(offset)
            return cast(Row, json.loads(file.readline()))

    def _append(self, rows: Iterable[Row]) -> list[int]:
        assert self._file is not None, "the ledger is not open"
        lines = [json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows]
        offsets = []
        for line in lines:
            offsets.append(self._end)
            self._end += len(line)
        data = memoryview(b"".join(lines))
        self._books.add(data)
        while data:
            data = data[self._file.write(data) :]
        self._num_lines += len(lines)
        return offsets

    def _row(self, path: str, status: str) -> Row:
        entry = self._found[self._index[path]]
        return {
            "path": path,
            "status": status,
            "size": entry.size,
            "mtime_ns": entry.mtime_ns,
            "recipe": self._recipe_key,
        }

    def _result_row(self, result: FileResult) -> Row:
        earlier = self.known_outputs(result.path)
        if isinstance(result, FileDone):
            row = self._row(result.path, "ok") | numbers(asdict(result.report))
            row["outputs"] = [asdict(output) for output in result.outputs]
            earlier = tuple(set(earlier) - {output.path for output in result.outputs})
        elif isinstance(result, FileFailed):
            row = self._row(result.path, "error")
            row |= {"error": result.kind, "reason": result.reason, "retry": result.retry}
        else:
            row = self._row(result.path, "skipped") | {"reason": result.reason}
        there = [path for path in sorted(earlier) if self._books.size(path) is not None]
        return row | ({"earlier_outputs": there} if there else {})

    def _read(self) -> None:
        """Index the manifest, if there is one."""
        self._codes[:] = bytes(len(self._found))
        self._num_lines = self._end = 0
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    _logger.warning("manifest=%s torn_bytes=%d", self._path.name, len(line))
                    self.num_damaged += 1
                    break
                self._read_line(line, self._end)
                self._end += len(line)
                self._num_lines += 1

    def _read_line(self, line: bytes, offset: int) -> None:
        try:
            row = parse_line(line.decode())
            path = row["path"]
            if not isinstance(path, str):
                raise TypeError(path)
            position = self._index.get(path)
            code = _NONE if position is None else self._code(row, self._found[position])
            outputs = () if code else listed_outputs(row)
        except (ValueError, KeyError, TypeError, AttributeError):
            _logger.warning("manifest=%s unreadable_line_at=%d", self._path.name, offset)
            self.num_damaged += 1
            return
        if position is None:
            if self._same_root:
                self._elsewhere[path] = offset
            return
        entry = self._found[position]
        if self._offsets[position] == _NOWHERE:
            self._num_fitting += is_unchanged(row, entry)
        self._offsets[position] = offset
        self._codes[position] = code
        self._known.pop(path, None)
        if not code and (self._same_root or is_unchanged(row, entry)):
            self._known[entry.path] = outputs

    def _code(self, row: Row, entry: Found) -> int:
        """The status code of a row, `_NONE` if it is not settled."""
        if not is_unchanged(row, entry) or row["recipe"] != self._recipe_key:
            return _NONE
        return _CODES[row["status"]] if self._is_settled(row) else _NONE

    def _is_settled(self, row: Row) -> bool:
        if row["status"] == "error":
            return not row.get("retry", True)
        return row["status"] == "skipped" or (
            row["status"] == "ok"
            and all(self._books.size(output["path"]) == output["size"] for output in row["outputs"])
        )
