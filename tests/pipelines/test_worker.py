from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from audiovae.errors import AudioWriteError
from pipelines.runner.recipe import Recipe
from pipelines.runner.units import Assembly, FileDone, FileFailed, Pack, Part, PartDone, Task
from pipelines.runner.worker import Worker, Workplace
from tests.pipelines.fakes import FakeTransformer, write_tone

SPANS = ((0, 2), (2, 4), (4, 5))


@pytest.fixture
def transformer() -> FakeTransformer:
    return FakeTransformer()


@pytest.fixture
def worker(tmp_path: Path, transformer: Any) -> Worker:
    recipe = Recipe(("resynthesize",), "base", "w", 6, "wav")
    place = Workplace(tmp_path / "in", tmp_path / "out", recipe, "cpu")
    place.prepare()
    return Worker(place, transformer, "fake", "id")


def pack(tmp_path: Path, *names: str) -> Pack:
    for name in names:
        write_tone(tmp_path / "in" / name)
    return Pack(0, tuple(Task(name, 0.1) for name in names))


def kinds(results: tuple[object, ...]) -> list[str]:
    return [r.kind if isinstance(r, FileFailed) else type(r).__name__ for r in results]


def left_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def test_outputs_appear_in_place_with_their_size(tmp_path: Path, worker: Worker) -> None:
    outcome = worker.perform(pack(tmp_path, "x/a.wav", "b.wav"))
    assert kinds(outcome.results) == ["FileDone", "FileDone"]
    done = outcome.results[0]
    assert isinstance(done, FileDone)
    output = tmp_path / "out" / "x" / "a.wav.resynth.wav"
    assert [(o.path, o.size) for o in done.outputs] == [
        ("x/a.wav.resynth.wav", output.stat().st_size)
    ]
    assert left_in(tmp_path / "out" / ".audiovae_work") == []


def test_a_bad_file_does_not_spoil_its_pack(tmp_path: Path, worker: Worker) -> None:
    outcome = worker.perform(pack(tmp_path, "a.wav", "bad.wav", "c.wav"))
    assert kinds(outcome.results) == ["FileDone", "CorruptAudioError", "FileDone"]


@pytest.mark.parametrize(
    ("name", "kind"), [("boom.wav", "ZeroDivisionError"), ("memory.wav", "MemoryError")]
)
def test_only_the_culprit_of_an_exception_is_blamed(
    tmp_path: Path, worker: Worker, transformer: FakeTransformer, name: str, kind: str
) -> None:
    outcome = worker.perform(pack(tmp_path, "a.wav", name, "c.wav"))
    assert kinds(outcome.results) == ["FileDone", kind, "FileDone"]
    assert transformer.calls == [["a.wav", name, "c.wav"], ["a.wav"], [name], ["c.wav"]]
    culprit = outcome.results[1]
    assert isinstance(culprit, FileFailed)
    assert culprit.retry


def test_a_full_disk_is_fatal(tmp_path: Path, worker: Worker) -> None:
    outcome = worker.perform(pack(tmp_path, "full.wav"))
    assert "No space left on device" in outcome.fatal
    assert outcome.results == ()


@pytest.mark.parametrize("gone", ["in", "out"])
def test_a_directory_that_is_gone_is_no_files_fault(
    tmp_path: Path, worker: Worker, gone: str
) -> None:
    unit = pack(tmp_path, "a.wav", "bad.wav")
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    outcome = worker.perform(unit)
    assert outcome.results == ()
    assert f"expected '{tmp_path / gone}" in outcome.fatal
    assert "found it gone" in outcome.fatal


def test_a_full_disk_found_alone_is_fatal_too(
    tmp_path: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(source: Path, destination: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipelines.runner.worker.os.replace", replace)
    assert "No space left" in worker.perform(pack(tmp_path, "a.wav", "b.wav")).fatal


def test_a_write_error_without_number_is_tried_out(
    tmp_path: Path, worker: Worker, transformer: FakeTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [AudioWriteError("a.wav: the library says no")]
    monkeypatch.setattr(transformer, "process_files", lambda jobs: failed)
    outcome = worker.perform(pack(tmp_path, "a.wav"))
    assert (kinds(outcome.results), outcome.fatal) == (["AudioWriteError"], "")

    def write_bytes(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert "No space left" in worker.perform(pack(tmp_path, "b.wav")).fatal


def test_a_name_too_long_for_its_output_is_one_files_error(tmp_path: Path, worker: Worker) -> None:
    long_name = "x" * 250 + ".wav"
    outcome = worker.perform(pack(tmp_path, long_name, "b.wav"))
    assert kinds(outcome.results) == ["AudioWriteError", "FileDone"]
    assert outcome.fatal == ""


def test_a_directory_in_the_way_is_one_files_error(tmp_path: Path, worker: Worker) -> None:
    (tmp_path / "out" / "a.wav.resynth.wav" / "full").mkdir(parents=True)
    outcome = worker.perform(pack(tmp_path, "a.wav", "b.wav"))
    assert kinds(outcome.results) == ["AudioWriteError", "FileDone"]


def test_parts_become_an_output_and_vanish(tmp_path: Path, worker: Worker) -> None:
    write_tone(tmp_path / "in" / "long.wav")
    task = Task("long.wav", 50.0, 1, SPANS)
    reports = []
    for index in (1, 0, 2):
        (part,) = worker.perform(Part(index, task, index)).results
        assert isinstance(part, PartDone)
        reports.append((part.index, part.report))
    ordered = tuple(report for _, report in sorted(reports, key=lambda pair: pair[0]))
    outcome = worker.perform(Assembly(3, task, ordered))
    assert kinds(outcome.results) == ["FileDone"]
    assert (tmp_path / "out" / "long.wav.resynth.wav").stat().st_size == 3 * 34
    assert left_in(tmp_path / "out" / ".audiovae_work") == []


def test_a_failed_part_fails_its_file(tmp_path: Path, worker: Worker) -> None:
    write_tone(tmp_path / "in" / "part-boom.wav")
    outcome = worker.perform(Part(0, Task("part-boom.wav", 50.0, 1, SPANS), 1))
    assert kinds(outcome.results) == ["CorruptAudioError"]


def test_interrupts_are_not_a_files_fault(
    tmp_path: Path, worker: Worker, transformer: FakeTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(jobs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transformer, "process_files", interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.perform(pack(tmp_path, "a.wav"))
