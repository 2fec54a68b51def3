"""`python -m pipelines.preprocess`: resumable, always the same bytes, and nothing vanishes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from audiovae.errors import ConfigError
from audiovae.training.shards import load_shard_waveforms, load_shards
from pipelines import preprocess
from pipelines.preprocessing import shard_plan
from pipelines.preprocessing.shard_worker import ShardMaker
from pipelines.runner.storage import LocalStorage
from tests.shard_files import CONFIG, json_lines, make_shards, shard_contents
from tests.tones import tones, write_tones


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tones fill a shard."""
    monkeypatch.setattr(shard_plan, "_MIN_SHARD_FRAMES", 60)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tones(tmp_path / "audio", count=6, seconds=0.5)


def names(directory: Path) -> list[str]:
    return list(load_shards(directory, CONFIG).names)


def test_shards_do_not_depend_on_the_number_of_workers(source: Path, tmp_path: Path) -> None:
    for workers in (1, 2, 5):
        make_shards(source, tmp_path / str(workers), num_workers=workers, with_audio=True)
    one, two, five = (shard_contents(tmp_path / name) for name in "125")
    assert one == two == five
    assert sum(name.startswith("shards/") for name in one) == 3
    assert not (tmp_path / "1" / ".audiovae_work").exists()


def test_a_second_run_does_nothing_and_does_it_without_torch(source: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    target = tmp_path / "shards"
    make_shards(source, target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.*")}
    probe = (
        "import sys; from pipelines.preprocess import main;"
        "assert main(sys.argv[1:]) == 0; assert not {'torch', 'ray'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", probe, str(source), "--output-dir", str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "written=0 known=6 duplicates=0 skipped=0 failed=0" in ended.stdout
    after = {path: path.stat().st_mtime_ns for path in target.rglob("*.*")}
    company = {target / "preprocess.log", target / ".audiovae.lock"}
    assert {p: t for p, t in after.items() if p not in company} == {
        p: t for p, t in before.items() if p not in company
    }


def test_what_is_new_is_added_and_what_changed_is_replaced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    make_shards(source, target)
    first = shard_contents(target)
    write_tones(source / "new", count=1, seconds=1.0)
    soundfile.write(source / "tone_2.wav", tones(30_000, 9), 44_100, subtype="FLOAT")
    (source / "tone_4.wav").unlink()
    report = make_shards(source, target)
    assert (report.written, report.known) == (1, 6)
    corpus = load_shards(target, CONFIG)
    assert sorted(corpus.names) == ["new/tone_0.wav", *(f"tone_{i}.wav" for i in range(6))]
    assert int(corpus.lengths[corpus.names.index("tone_2.wav")]) == 59
    for name, data in shard_contents(target).items():  # nothing that was there is written again
        assert first.get(name, data) == data or name == "index.jsonl"


@pytest.mark.parametrize("with_audio", [False, True])
def test_a_long_file_lies_in_several_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_audio: bool
) -> None:
    monkeypatch.setattr(shard_plan, "MAX_SHARD_FRAMES", 50)
    source = write_tones(tmp_path / "audio", count=2, seconds=0.5)
    soundfile.write(source / "long.wav", tones(100_000, 5), 44_100, subtype="FLOAT")
    make_shards(source, tmp_path / "parts", with_audio=with_audio)
    rows = json_lines(tmp_path / "parts" / "index.jsonl")
    places = [(row["source_frame"], row["num_frames"]) for row in rows[:4]]
    assert places == [(0, 50), (50, 50), (100, 50), (150, 46)]
    parts = load_shards(tmp_path / "parts", CONFIG)
    assert parts.names[:5] == ("long.wav",) * 4 + ("tone_0.wav",)
    monkeypatch.setattr(shard_plan, "MAX_SHARD_FRAMES", 1 << 18)
    make_shards(source, tmp_path / "whole", with_audio=with_audio)
    whole = load_shards(tmp_path / "whole", CONFIG)
    assert torch.equal(torch.cat([parts.clip(i) for i in range(4)]), whole.clip(0))
    if with_audio:
        sounds = load_shard_waveforms(tmp_path / "parts", CONFIG)
        pieces = torch.cat([sounds.clip(i) for i in range(4)])
        assert torch.equal(pieces, load_shard_waveforms(tmp_path / "whole", CONFIG).clip(0))
        assert len(pieces) == 100_000


def run_until_write(number: int, run: Callable[[], object]) -> bool:
    """Run in a process that dies, as of `kill -9`, at its n-th change of the output directory.

    Returns:
        Whether it died.
    """
    if not (child := os.fork()):
        writes = 0
        for name in ("write_text", "place", "remove_tree"):
            original = getattr(LocalStorage, name)

            def counted(*arguments: object, original: Callable[..., None] = original) -> None:
                nonlocal writes
                writes += 1
                if writes == number:
                    os._exit(9)
                original(*arguments)

            setattr(LocalStorage, name, counted)
        try:
            run()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 9


def test_a_run_killed_at_any_write_is_finished_as_if_nothing_had_been(
    source: Path, tmp_path: Path
) -> None:
    (source / "bad.wav").write_bytes(b"RIFF, and no more")
    make_shards(source, tmp_path / "whole", with_audio=True)
    expected = shard_contents(tmp_path / "whole")
    number, died = 0, True
    while died:
        number += 1
        target = tmp_path / "killed"

        def run(target: Path = target) -> object:
            return make_shards(source, target, with_audio=True)

        died = run_until_write(number, run)
        if number % 2:  # and half of the reruns are killed as well
            run_until_write(2, run)
        run()
        assert shard_contents(target) == expected, f"killed at write {number}"
        shutil.rmtree(target)
    assert number > 3 * 3 + 4  # three shards, each two arrays and a note; plan, index, ...


def test_finished_shards_are_not_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"
    assert run_until_write(6, lambda: make_shards(source, target, num_workers=1))
    made: list[int] = []
    original = ShardMaker.perform

    def perform(self: ShardMaker, unit: object) -> object:
        made.append(unit.number)  # type: ignore[attr-defined]
        return original(self, unit)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardMaker, "perform", perform)
    make_shards(source, target, num_workers=1)
    assert sorted(made) == [1, 2]
    assert len(names(target)) == 6


def test_a_file_that_changes_between_kill_and_rerun(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    assert run_until_write(3, lambda: make_shards(source, target, num_workers=1))
    soundfile.write(source / "tone_0.wav", tones(30_000, 9), 44_100, subtype="FLOAT")
    (source / "tone_3.wav").unlink()
    report = make_shards(source, target)
    assert (report.written, report.failed) == (5, ())
    corpus = load_shards(target, CONFIG)
    assert sorted(corpus.names) == [f"tone_{i}.wav" for i in (0, 1, 2, 4, 5)]
    assert int(corpus.lengths[corpus.names.index("tone_0.wav")]) == 59


def test_a_stopped_run_leaves_shards_to_train_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiovae.commands import Interrupted
    from pipelines.preprocessing import run

    target = tmp_path / "shards"
    book = run._Work._book

    def stop_after(self: run._Work, *arguments: Any) -> Any:
        again = book(self, *arguments)
        signal.raise_signal(signal.SIGINT)
        return again

    with monkeypatch.context() as patched:
        patched.setattr(run._Work, "_book", stop_after)
        with pytest.raises(Interrupted):
            make_shards(source, target, num_workers=1)
    assert 1 <= len(names(target)) < 6
    make_shards(source, target)
    make_shards(source, tmp_path / "whole")
    assert shard_contents(target) == shard_contents(tmp_path / "whole")


def test_a_run_killed_while_it_tidies_up_is_not_done_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "shards"

    def half(self: LocalStorage, folder: str) -> None:
        shutil.rmtree(self.root / folder / "finished")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "remove_tree", half)
        with pytest.raises(KeyboardInterrupt):
            make_shards(source, target)
    report = make_shards(source, target)
    assert (report.written, report.known) == (0, 6)
    assert len(names(target)) == 6


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("folder", ["shards", "waveforms"])
@pytest.mark.parametrize("damage", [remove, empty, cut, overwrite])
def test_a_lost_shard_is_made_again(
    source: Path, tmp_path: Path, folder: str, damage: Callable[[Path], None]
) -> None:
    target = tmp_path / "shards"
    make_shards(source, target, with_audio=True)
    whole = shard_contents(target)
    damage(target / folder / "00002.npy")
    report = make_shards(source, target)
    assert (report.written, report.known, report.failed) == (2, 4, ())
    assert shard_contents(target) == whole
    damage(target / folder / "00001.npy")
    assert make_shards(source, target).written == 2
    assert sorted(names(target)) == [f"tone_{i}.wav" for i in range(6)]
    assert make_shards(source, target).written == 0


def test_a_lost_shard_of_which_a_killed_run_had_begun_another(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    make_shards(source, target, with_audio=True)
    whole = shard_contents(target)
    number, died = 0, True
    while died:
        number += 1
        (target / "shards" / "00002.npy").unlink()
        died = run_until_write(number, lambda: make_shards(source, target))
        make_shards(source, target)
        assert shard_contents(target) == whole, f"killed at write {number}"
    assert number > 4


@pytest.mark.parametrize("facts", [{"num_frames": 10**9}, {"first_frame": 999}, {"num_samples": 0}])
def test_rows_that_point_nowhere_are_made_again(
    source: Path, tmp_path: Path, facts: dict[str, int]
) -> None:
    target = tmp_path / "shards"
    make_shards(source, target, with_audio=True)
    rows = json_lines(target / "index.jsonl")
    lines = (json.dumps(row) + "\n" for row in [rows[0] | facts, *rows[1:]])
    (target / "index.jsonl").write_text("".join(lines))
    report = make_shards(source, target)
    assert (report.written, report.known) == (1, 5)
    assert sorted(names(target)) == [f"tone_{i}.wav" for i in range(6)]


def test_a_long_file_that_has_lost_a_part_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_plan, "MAX_SHARD_FRAMES", 50)
    source, target = tmp_path / "audio", tmp_path / "shards"
    source.mkdir()
    soundfile.write(source / "long.wav", tones(100_000, 5), 44_100, subtype="FLOAT")
    make_shards(source, target)
    (target / "shards" / "00001.npy").unlink()
    assert make_shards(source, target).written == 1
    rows = json_lines(target / "index.jsonl")
    assert [row["source_frame"] for row in rows] == [0, 50, 100, 150]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.jsonl", '{"path": "x.wav", "shard": "../../x.npy"}\n'),
        ("index.jsonl", "\udcff\udcfe\n"),
        ("left_out.jsonl", "{}\n"),
        ("left_out.jsonl", '{"path": "x.wav", "size": 1, "mtime_ns": 1, "status": "error"}\n'),
        (".audiovae_work/plan.jsonl", "[]\n"),
        ("shards.json", "\udcff"),
    ],
)
def test_records_that_cannot_be_read_are_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    target = tmp_path / "shards"
    make_shards(source, target)
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text(text, errors="surrogateescape")
    capsys.readouterr()
    assert preprocess.main([str(source), "--output-dir", str(target)]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "got a damaged one" in line
    assert "unforeseen" not in line


def test_a_damaged_note_is_none(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    assert run_until_write(6, lambda: make_shards(source, target, num_workers=1))
    (note,) = (target / ".audiovae_work" / "finished").iterdir()
    note.write_text("{")
    assert make_shards(source, target).written == 6
    make_shards(source, tmp_path / "whole")
    assert shard_contents(target) == shard_contents(tmp_path / "whole")


def test_what_was_made_again_is_said(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "shards"
    make_shards(source, target)
    (target / "shards" / "00001.npy").unlink()
    capsys.readouterr()
    make_shards(source, target)
    assert "2 clips of shards that are damaged or missing: made again" in capsys.readouterr().err


def test_every_input_has_a_row(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    (source / "bad.wav").write_bytes(b"RIFF, and no more")
    whole = (source / "tone_0.wav").read_bytes()
    (source / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (source / "notes.txt").write_text("no audio")
    samples = tones(22_050, 1)
    samples[9_000] = np.inf
    soundfile.write(source / "infinite.wav", samples, 44_100, subtype="FLOAT")
    report = make_shards(source, target)
    assert (report.written, report.skipped) == (6, 1)
    assert [path for path, _ in report.failed] == ["bad.wav", "cut.wav", "infinite.wav"]
    left_out = {row["path"]: row["status"] for row in json_lines(target / "left_out.jsonl")}
    stored = {row["path"] for row in json_lines(target / "index.jsonl")}
    assert left_out == {
        "bad.wav": "error",
        "cut.wav": "error",
        "infinite.wav": "error",
        "notes.txt": "skipped",
    }
    assert not stored & set(left_out)
    assert stored | set(left_out) == {path.name for path in source.iterdir()}
    before = shard_contents(target)
    assert make_shards(source, target).failed == report.failed  # known without another look
    assert shard_contents(target) == before
    soundfile.write(source / "infinite.wav", tones(22_050, 1), 44_100, subtype="FLOAT")
    assert make_shards(source, target).written == 1
    assert "infinite.wav" in names(target)


def test_only_bad_files_leave_no_shard(tmp_path: Path) -> None:
    source = tmp_path / "audio"
    source.mkdir()
    (source / "a.wav").write_bytes(b"nothing")
    assert make_shards(source, tmp_path / "shards").written == 0
    assert not (tmp_path / "shards" / "shards").exists()
    with pytest.raises(ConfigError, match="expected shards with clips"):
        load_shards(tmp_path / "shards", CONFIG)


def test_duplicates_are_left_out_on_request(source: Path, tmp_path: Path) -> None:
    shutil.copy(source / "tone_1.wav", source / "a_copy.wav")
    shutil.copy(source / "tone_1.wav", source / "z_copy.wav")
    shutil.copy(source / "tone_4.wav", source / "tone_4b.wav")
    target = tmp_path / "shards"
    report = make_shards(source, target, deduplicate=True)
    assert (report.written, report.duplicates) == (6, 3)
    originals = {r["path"]: r["original"] for r in json_lines(target / "left_out.jsonl")}
    assert originals == {
        "tone_1.wav": "a_copy.wav",
        "z_copy.wav": "a_copy.wav",
        "tone_4b.wav": "tone_4.wav",
    }
    shutil.copy(source / "tone_0.wav", source / "late.wav")  # of a clip that is stored already
    assert make_shards(source, target, deduplicate=True).duplicates == 4
    assert make_shards(source, target).written == 4  # nobody asked for it this time
    assert sorted(names(target)) == sorted(path.name for path in source.iterdir())


def test_only_rivals_in_size_are_hashed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(source / "longer.wav", tones(30_000, 9), 44_100, subtype="FLOAT")
    hashed: list[str] = []
    original = LocalStorage.sha256

    def sha256(self: LocalStorage, path: str) -> str:
        hashed.append(path)
        return original(self, path)

    monkeypatch.setattr(LocalStorage, "sha256", sha256)
    assert make_shards(source, tmp_path / "shards", deduplicate=True).written == 7
    assert sorted(hashed) == [f"tone_{i}.wav" for i in range(6)]
    hashed.clear()
    shutil.copy(source / "tone_0.wav", source / "late.wav")
    assert make_shards(source, tmp_path / "shards", deduplicate=True).duplicates == 1
    assert hashed == ["late.wav"]


def test_another_spectrogram_and_missing_waveforms_are_refused(
    source: Path, tmp_path: Path
) -> None:
    make_shards(source, tmp_path / "shards")
    with pytest.raises(ConfigError, match="leave out --with-audio"):
        make_shards(source, tmp_path / "shards", with_audio=True)
    other = CONFIG.model_copy(update={"num_mels": 80})
    with pytest.raises(ConfigError, match=r"spectrogram\.num_mels = 80, got 128"):
        make_shards(source, tmp_path / "shards", config=other)


def test_a_directory_with_waveforms_keeps_them(source: Path, tmp_path: Path) -> None:
    make_shards(source, tmp_path / "shards", with_audio=True)
    shutil.copy(source / "tone_0.wav", source / "late.wav")
    make_shards(source, tmp_path / "shards")
    assert len(load_shard_waveforms(tmp_path / "shards", CONFIG).names) == 7


def test_the_command_names_what_failed_in_its_exit_status(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "bad.wav").write_bytes(b"no audio")
    arguments = [str(source), "--output-dir", str(tmp_path / "shards"), "--executor", "local"]
    assert preprocess.main(arguments) == 3
    written = capsys.readouterr()
    assert "written=6 known=0 duplicates=0 skipped=0 failed=1" in written.out
    assert "failed: bad.wav: NotAudioError: expected audio" in written.err
    assert preprocess.main([str(tmp_path / "nowhere"), *arguments[1:]]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from pipelines.runner.stopping import FatalProblem

    def place(self: LocalStorage, draft: Path, path: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "place", place)
        with pytest.raises(FatalProblem, match="No space left on device"):
            make_shards(source, tmp_path / "shards", num_workers=1)
    report = make_shards(source, tmp_path / "shards")
    assert (report.written + report.known, report.failed) == (6, ())
