from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipelines.runner.desk import LocalBooks
from pipelines.runner.inputs import Found
from pipelines.runner.ledger import Ledger
from pipelines.runner.units import FileDone, FileFailed, FileSkipped, Output
from tests.pipelines.fakes import FakeFileReport, rows

KEY = "0123456789abcdef"
FOUND = [Found("a.wav", 10, 1), Found("b.wav", 20, 2), Found("c.txt", 30, 3)]


def open_ledger(
    folder: Path, found: list[Found] | None = None, key: str = KEY, same_root: bool = True
) -> Ledger:
    return Ledger(LocalBooks(folder), FOUND if found is None else found, key, same_root=same_root)


def done(folder: Path, path: str, distance: float = 2.5) -> FileDone:
    output = f"{path}.resynth.wav"
    (folder / output).write_bytes(b"sound")
    report: Any = FakeFileReport(1.0, 44_100, 1, 2.8, 3.0, distance, {"decode": 0.1})
    return FileDone(path, (Output("resynthesize", output, 5),), report)


def record_all(folder: Path) -> None:
    with open_ledger(folder) as ledger:
        ledger.start([("b.wav", ("b.wav.resynth.wav",)), ("a.wav", ("a.wav.resynth.wav",))])
        ledger.record([done(folder, "b.wav"), FileSkipped("c.txt", "not audio")])
        ledger.record([done(folder, "a.wav")])


def pending(ledger: Ledger) -> list[str]:
    return [entry.path for entry in ledger.pending()]


def test_a_new_directory_has_everything_pending(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    assert pending(ledger) == ledger.missing() == ["a.wav", "b.wav", "c.txt"]
    assert not (tmp_path / "manifest.jsonl").exists()


def test_finished_manifest_has_one_row_an_input_in_plan_order(tmp_path: Path) -> None:
    record_all(tmp_path)
    ledger = open_ledger(tmp_path)
    assert ledger.missing() == []
    assert ledger.compact(lambda path: True)
    assert [row["path"] for row in rows(tmp_path)] == ["a.wav", "b.wav", "c.txt"]
    assert ledger.counts() == {"ok": 2, "error": 0, "skipped": 1}
    assert [row["path"] for row in ledger.rows()] == ["a.wav", "b.wav", "c.txt"]
    assert [row["path"] for row in ledger.rows("skipped")] == ["c.txt"]
    before = (tmp_path / "manifest.jsonl").stat().st_mtime_ns
    assert not open_ledger(tmp_path).compact(lambda path: True)
    assert (tmp_path / "manifest.jsonl").stat().st_mtime_ns == before


def test_row_says_what_was_done_without_timings(tmp_path: Path) -> None:
    record_all(tmp_path)
    row = next(row for row in rows(tmp_path) if row["path"] == "a.wav" and row["status"] == "ok")
    assert row == {
        "path": "a.wav",
        "status": "ok",
        "size": 10,
        "mtime_ns": 1,
        "recipe": KEY,
        "seconds": 1.0,
        "sample_rate": 44_100,
        "num_channels": 1,
        "estimated_kbps": 2.8,
        "kbps": 3.0,
        "log_mel_l1_db": 2.5,
        "note": "",
        "outputs": [{"product": "resynthesize", "path": "a.wav.resynth.wav", "size": 5}],
    }


@pytest.mark.parametrize(
    ("found", "key"),
    [
        ([Found("a.wav", 11, 1), *FOUND[1:]], KEY),
        ([Found("a.wav", 10, 9), *FOUND[1:]], KEY),
    ],
)
def test_a_changed_input_is_pending_and_its_output_known(
    tmp_path: Path, found: list[Found], key: str
) -> None:
    record_all(tmp_path)
    ledger = open_ledger(tmp_path, found, key)
    assert pending(ledger) == ["a.wav"]
    assert ledger.known_outputs("a.wav") == ("a.wav.resynth.wav",)


def test_another_recipe_makes_everything_pending(tmp_path: Path) -> None:
    record_all(tmp_path)
    assert pending(open_ledger(tmp_path, key="f" * 16)) == ["a.wav", "b.wav", "c.txt"]


def test_missing_and_changed_outputs_are_pending(tmp_path: Path) -> None:
    record_all(tmp_path)
    (tmp_path / "a.wav.resynth.wav").unlink()
    (tmp_path / "b.wav.resynth.wav").write_bytes(b"cut")
    ledger = open_ledger(tmp_path)
    assert pending(ledger) == ["a.wav", "b.wav"]
    assert ledger.known_outputs("b.wav") == ("b.wav.resynth.wav",)


def test_rows_of_another_root_give_no_right_to_overwrite(tmp_path: Path) -> None:
    record_all(tmp_path)
    ledger = open_ledger(tmp_path, [Found("a.wav", 99, 9), FOUND[1]], same_root=False)
    assert pending(ledger) == ["a.wav"]
    assert ledger.known_outputs("a.wav") == ()


@pytest.mark.parametrize(("retry", "expected"), [(True, ["a.wav"]), (False, [])])
def test_only_refused_content_stays_refused(
    tmp_path: Path, retry: bool, expected: list[str]
) -> None:
    with open_ledger(tmp_path, FOUND[:1]) as ledger:
        ledger.record([FileFailed("a.wav", "MemoryError", "no message", retry)])
    assert pending(open_ledger(tmp_path, FOUND[:1])) == expected


def test_the_same_refusal_again_adds_no_row(tmp_path: Path) -> None:
    refusal = FileFailed("a.wav", "OutputExists", "in the way", retry=True)
    for _ in range(2):
        with open_ledger(tmp_path, FOUND[:1]) as ledger:
            ledger.record([refusal])
    assert len(rows(tmp_path)) == 1
    assert ledger.missing() == []
    with open_ledger(tmp_path, FOUND[:1]) as ledger:
        ledger.record([FileFailed("a.wav", "OutputExists", "another reason", retry=True)])
    assert [row["reason"] for row in rows(tmp_path)] == ["in the way", "another reason"]


def test_damaged_lines_are_counted_and_cost_their_files_only(tmp_path: Path) -> None:
    record_all(tmp_path)
    open_ledger(tmp_path).compact(lambda path: True)
    manifest = tmp_path / "manifest.jsonl"
    whole = manifest.read_bytes().splitlines(keepends=True)
    for damaged in (b"\x00\xff\n", b"[1]\n", b"null\n", b'{"path": 3}\n', whole[0][:30] + b"\n"):
        manifest.write_bytes(b"".join([damaged, *whole[1:]]))
        ledger = open_ledger(tmp_path)
        assert (ledger.num_damaged, pending(ledger)) == (1, ["a.wav"])
    manifest.write_bytes(b"".join([whole[0][:-1] + b"{}\n", *whole[1:], whole[0][:30]]))
    assert open_ledger(tmp_path).num_damaged == 2


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_a_torn_last_line_is_dropped(tmp_path: Path, keep: int) -> None:
    record_all(tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    whole, last = manifest.read_bytes()[:-1].rsplit(b"\n", 1)
    manifest.write_bytes(whole + b"\n" + last[:keep])
    assert pending(open_ledger(tmp_path)) == ["a.wav"]
    with open_ledger(tmp_path) as ledger:
        assert ledger.known_outputs("a.wav") == ("a.wav.resynth.wav",)  # its unit had started
        ledger.record([done(tmp_path, "a.wav")])
    assert rows(tmp_path)[-1]["status"] == "ok"
    assert open_ledger(tmp_path).missing() == []


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"\xff\xfe", b'{"path": 3}', b'{"status": 1}'])
def test_foreign_lines_are_ignored_and_swept_out(tmp_path: Path, line: bytes) -> None:
    record_all(tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(line + b"\n" + manifest.read_bytes())
    ledger = open_ledger(tmp_path)
    assert ledger.missing() == []
    assert ledger.compact(lambda path: True)
    assert len(rows(tmp_path)) == len(FOUND)


def test_a_started_file_is_pending_and_its_outputs_are_ours(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.start([("a.wav", ("a.wav.resynth.wav",))])
    ledger = open_ledger(tmp_path)
    assert pending(ledger) == ["a.wav", "b.wav", "c.txt"]
    assert ledger.known_outputs("a.wav") == ("a.wav.resynth.wav",)
    assert ledger.known_outputs("b.wav") == ()


def test_outputs_of_an_earlier_recipe_stay_known(tmp_path: Path) -> None:
    record_all(tmp_path)
    with open_ledger(tmp_path, key="f" * 16) as ledger:
        ledger.start([("a.wav", ("a.wav.resynth.flac",))])
        (tmp_path / "a.wav.resynth.flac").write_bytes(b"sound")
        result = done(tmp_path, "a.wav")
        flac = Output("resynthesize", "a.wav.resynth.flac", 5)
        ledger.record([FileDone("a.wav", (flac,), result.report)])
    assert rows(tmp_path)[-1]["earlier_outputs"] == ["a.wav.resynth.wav"]
    assert open_ledger(tmp_path).known_outputs("a.wav") == (
        "a.wav.resynth.flac",
        "a.wav.resynth.wav",
    )


def test_rows_of_other_inputs_are_kept_while_these_exist(tmp_path: Path) -> None:
    record_all(tmp_path)
    ledger = open_ledger(tmp_path, FOUND[1:2])
    assert ledger.missing() == []
    assert ledger.compact(lambda path: path == "a.wav")
    assert [row["path"] for row in rows(tmp_path)] == ["a.wav", "b.wav"]
    assert [row["path"] for row in ledger.rows()] == ["b.wav"]


def test_infinite_numbers_become_null(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([done(tmp_path, "a.wav", distance=math.nan)])
    assert rows(tmp_path)[0]["log_mel_l1_db"] is None


def test_a_second_result_is_a_fault_of_ours(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([done(tmp_path, "a.wav")])
        with pytest.raises(RuntimeError, match="second result"):
            ledger.record([done(tmp_path, "a.wav")])


def test_names_of_any_bytes_come_back(tmp_path: Path) -> None:
    found = [Found("\udcff\n\u2028\U0001f3b5.wav", 1, 1)]
    with open_ledger(tmp_path, found) as ledger:
        ledger.record([FileSkipped(found[0].path, "not audio")])
    assert open_ledger(tmp_path, found).missing() == []
    assert json.loads((tmp_path / "manifest.jsonl").read_bytes())["path"] == found[0].path
