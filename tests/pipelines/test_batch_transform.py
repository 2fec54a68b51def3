from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runner.lock import OutputLock
from tests.pipelines import fakes
from tests.pipelines.conftest import Command
from tests.pipelines.fakes import all_contents, contents, rows, statuses, write_tone

ROOT = Path(__file__).resolve().parents[2]
HOSTILE_NAMES = (
    "-lead.wav",
    "--help.wav",
    "with space & 'quotes'.wav",
    "new\nline.wav",
    "ünï 音.wav",
    "<b>.wav",
    os.fsdecode(b"byte\xff.wav"),
    "*.wav",
)
NOTHING_TO_DO_SECONDS = 3.0


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        os.fsdecode(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_goes_in_and_everything_comes_out(command: Command, folder: Path) -> None:
    (folder / "notes.txt").write_text("no audio")
    before = snapshot(folder)
    ended = command(folder)
    output = folder.parent / "in_audiovae"
    assert ended.status == 0
    assert set(contents(output)) == {"a.wav.resynth.wav", "deep/b.wav.resynth.wav"}
    assert statuses(output) == {"a.wav": "ok", "deep/b.wav": "ok", "notes.txt": "skipped"}
    assert snapshot(folder) == before
    assert "2 ok, 0 failed, 1 skipped" in ended.out
    assert f"report: {output}/report.html" in ended.out
    assert {path.name for path in output.iterdir() if path.is_file()} == {
        ".audiovae.lock",
        "a.wav.avae",
        "a.wav.resynth.wav",
        "batch.log",
        "manifest.jsonl",
        "report.html",
        "summary.json",
    }


def test_rerun_does_nothing_and_says_so(command: Command, folder: Path) -> None:
    command(folder)
    output = folder.parent / "in_audiovae"
    before = {n: s for n, s in snapshot(output).items() if n != ".audiovae.lock"}
    ended = command(folder)
    assert (ended.status, ended.out) == (0, "nothing to do: 2 files are done\n")
    assert {n: s for n, s in snapshot(output).items() if n != ".audiovae.lock"} == before


def test_a_manifest_cut_short_says_what_to_do(command: Command, folder: Path) -> None:
    command(folder)
    output = folder.parent / "in_audiovae"
    before = contents(output)
    manifest = output / "manifest.jsonl"
    os.truncate(manifest, manifest.stat().st_size - 10)
    ended = command(folder)
    assert ended.status == 3
    assert ended.err.startswith("manifest.jsonl: 1 line is damaged and left out; if an output is ")
    assert "add --overwrite" in ended.err
    assert "OutputExists" in ended.err
    assert command(folder, "--overwrite").status == 0
    assert contents(output) == before


def test_relative_absolute_and_file_inputs_agree(
    command: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(folder, "--output-dir", tmp_path / "1").status == 0
    assert command("in", "--output-dir", "2").status == 0
    assert command("in/**/*.wav", "--output-dir", "3").status == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")
    assert command("in/a.wav").status == 0
    single = contents(folder / "a.wav_audiovae")
    assert single == {"a.wav.resynth.wav": contents(tmp_path / "1")["a.wav.resynth.wav"]}


def test_failed_inputs_are_named_and_exit_with_3(command: Command, folder: Path) -> None:
    write_tone(folder / "bad.wav")
    (folder / "noise.wav").write_bytes(b"noise")
    ended = command(folder)
    assert ended.status == 3
    assert "failed: bad.wav: CorruptAudioError: expected whole frames" in ended.err
    assert "failed: noise.wav: NotAudioError: " in ended.err
    assert "2 ok, 2 failed, 0 skipped" in ended.out
    assert "expected whole frames" in (folder.parent / "in_audiovae/report.html").read_text()
    again = command(folder)
    assert again.status == 3
    assert again.out == "nothing to do: 2 files are done, 2 failed\n"
    assert command(folder, "--allow-errors").status == 0


def test_long_lists_of_failures_are_cut_with_a_count(command: Command, folder: Path) -> None:
    for index in range(25):
        (folder / f"noise{index:02d}.wav").write_bytes(b"noise")
    ended = command(folder)
    assert ended.err.count("failed: noise") == 20
    assert re.search(r"failed: and 5 more; see .*manifest\.jsonl", ended.err)


def test_a_fault_is_a_row_and_its_traceback_goes_to_the_log(command: Command, folder: Path) -> None:
    write_tone(folder / "boom.wav")
    ended = command(folder)
    output = folder.parent / "in_audiovae"
    assert ended.status == 3
    assert "failed: boom.wav: ZeroDivisionError: a fault in the model" in ended.err
    assert "Traceback" not in ended.err
    assert "Traceback" in (output / "batch.log").read_text()
    assert statuses(output)["a.wav"] == "ok"
    (row,) = [row for row in rows(output) if row["path"] == "boom.wav"]
    assert row["retry"] is True


def test_a_broken_installation_is_nobodys_row(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan_spans(self: object, info: object) -> None:
        raise ImportError("no module named 'torch'")

    monkeypatch.setattr("pipelines.runner.batch._LazySpanPlanner.__call__", plan_spans)
    ended = command(folder)
    assert ended.status == 1
    assert "unforeseen ImportError: no module named 'torch'" in ended.err
    assert ended.err.count("\n") == 1
    assert rows(folder.parent / "in_audiovae") == []


def test_errors_that_may_pass_are_tried_again(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tone(folder / "memory.wav")
    assert command(folder).status == 3
    monkeypatch.setattr(
        fakes.FakeTransformer,
        "process_files",
        lambda self, jobs: [self._one(*job) for job in jobs],
    )
    ended = command(folder)
    assert ended.status == 0
    assert "done: 1 file" in ended.out


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names(command: Command, folder: Path, name: str) -> None:
    write_tone(folder / "sub" / name)
    ended = command(folder)
    output = folder.parent / "in_audiovae"
    assert ended.status == 0
    assert f"sub/{name}.resynth.wav" in contents(output)
    assert f"sub/{name}" in statuses(output)
    assert command(folder).out.startswith("nothing to do: 3")


def test_two_formats_of_one_name_do_not_collide(command: Command, folder: Path) -> None:
    (folder / "a.flac").write_bytes((folder / "a.wav").read_bytes())  # content decides
    command(folder)
    made = contents(folder.parent / "in_audiovae")
    assert {"a.wav.resynth.wav", "a.flac.resynth.wav"} <= set(made)


def test_what_changed_is_done_again_and_only_that(command: Command, folder: Path) -> None:
    command(folder)
    output = folder.parent / "in_audiovae"
    untouched = (output / "deep/b.wav.resynth.wav").stat().st_mtime_ns
    write_tone(folder / "a.wav", hz=880)
    before = contents(output)["a.wav.resynth.wav"]
    ended = command(folder)
    assert "done: 1 file" in ended.out
    assert contents(output)["a.wav.resynth.wav"] != before
    assert (output / "deep/b.wav.resynth.wav").stat().st_mtime_ns == untouched


def test_deleted_and_damaged_outputs_are_done_again(command: Command, folder: Path) -> None:
    command(folder)
    output = folder.parent / "in_audiovae"
    before = contents(output)
    (output / "a.wav.resynth.wav").unlink()
    (output / "deep/b.wav.resynth.wav").write_bytes(b"cut")
    assert "done: 2 files" in command(folder).out
    assert contents(output) == before


def test_changed_settings_do_everything_again(command: Command, folder: Path) -> None:
    command(folder)
    output = folder.parent / "in_audiovae"
    before = contents(output)
    ended = command(folder, "--quality", "3")
    assert "done: 2 files" in ended.out
    after = contents(output)
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in after)


def test_another_format_and_back_needs_no_overwrite(command: Command, folder: Path) -> None:
    command(folder)
    assert command(folder, "--format", "flac").status == 0
    assert command(folder).status == 0
    output = folder.parent / "in_audiovae"
    assert {"a.wav.resynth.wav", "a.wav.resynth.flac"} <= set(contents(output))


def test_vanished_inputs_lose_their_row(command: Command, folder: Path) -> None:
    command(folder)
    (folder / "a.wav").unlink()
    ended = command(folder)
    output = folder.parent / "in_audiovae"
    assert ended.status == 0
    assert statuses(output) == {"deep/b.wav": "ok"}
    assert (output / "a.wav.resynth.wav").exists()


def test_foreign_outputs_are_never_overwritten_unasked(command: Command, folder: Path) -> None:
    output = folder.parent / "out"
    precious = output / "a.wav.resynth.wav"
    output.mkdir()
    precious.write_bytes(b"precious")
    ended = command(folder, "--output-dir", output)
    assert ended.status == 3
    assert "not in the manifest; move it away or pass --overwrite" in ended.err
    assert precious.read_bytes() == b"precious"
    assert command(folder, "--output-dir", output).out.startswith("nothing to do: 1 file is")
    assert command(folder, "--output-dir", output, "--overwrite").status == 0
    assert precious.read_bytes() != b"precious"


@pytest.mark.parametrize("name", ["manifest.jsonl", "report.html", "summary.json"])
def test_books_of_something_else_are_never_replaced_unasked(
    command: Command, folder: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_text('{"audio_filepath": "a.wav", "text": "hello"}\n')
    ended = command(folder, "--output-dir", output)
    assert ended.status == 2
    assert f"with {name} of something else" in ended.err
    assert os.listdir(output) == [name]
    assert command(folder, "--output-dir", output, "--overwrite").status == 0
    assert command(folder, "--output-dir", output).status == 0


def test_another_folder_does_not_overwrite_the_first_ones_outputs(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command(folder, "--output-dir", output)
    before = contents(output)
    write_tone(tmp_path / "in2" / "a.wav", hz=880)
    for more in ((), ("--dry-run",)):
        ended = command(tmp_path / "in2", "--output-dir", output, *more)
        assert ended.status == 2
        assert f"with the results of '{folder}'" in ended.err
        assert contents(output) == before
    assert command(folder, "--output-dir", output).out == "nothing to do: 2 files are done\n"
    assert command(tmp_path / "in2", "--output-dir", output, "--overwrite").status == 0
    assert statuses(output) == {"a.wav": "ok"}


def test_a_folder_that_has_moved_is_the_same_input(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command(folder, "--output-dir", output)
    moved = folder.rename(tmp_path / "moved")
    ended = command(moved, "--output-dir", output)
    assert ended.out == "nothing to do: 2 files are done\n"
    write_tone(moved / "a.wav", hz=880, seconds=0.3)
    assert "done: 1 file" in command(moved, "--output-dir", output).out


def test_a_single_file_of_a_done_folder_keeps_the_other_rows(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command(folder, "--output-dir", output)
    write_tone(folder / "new.wav")
    assert "done: 1 file" in command(folder / "new.wav", "--output-dir", output).out
    assert list(statuses(output)) == ["a.wav", "deep/b.wav", "new.wav"]
    assert command(folder, "--output-dir", output).out == "nothing to do: 3 files are done\n"


def test_long_files_go_through_parts(command: Command, folder: Path) -> None:
    write_tone(folder / "long.wav", seconds=21)
    write_tone(folder / "part-boom.wav", seconds=21)
    ended = command(folder, "--workers", 3)
    output = folder.parent / "in_audiovae"
    assert ended.status == 3
    assert statuses(output)["long.wav"] == "ok"
    assert statuses(output)["part-boom.wav"] == "error"
    assert len(contents(output)["long.wav.resynth.wav"]) == 3 * 34
    assert not (output / ".audiovae_work").exists()


def test_bytes_and_manifest_do_not_depend_on_workers_or_company(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    for index in range(40):
        write_tone(folder / f"{index:02d}.wav", hz=200 + index)
    write_tone(folder / "bad.wav")
    command(folder, "--output-dir", tmp_path / "1", "--workers", 1)
    command(folder, "--output-dir", tmp_path / "4", "--workers", 4)
    for path in sorted(folder.rglob("*.wav"), reverse=True):
        command(path, "--output-dir", tmp_path / "alone" / path.name)
    manifests = [(tmp_path / name / "manifest.jsonl").read_bytes() for name in ("1", "4")]
    assert manifests[0] == manifests[1]
    assert all_contents(tmp_path / "1") == all_contents(tmp_path / "4")
    alone = {os.path.basename(path): data for path, data in contents(tmp_path / "alone").items()}
    assert alone == {os.path.basename(p): data for p, data in contents(tmp_path / "1").items()}


def test_dry_run_says_what_would_happen_and_writes_nothing(command: Command, folder: Path) -> None:
    (folder / "noise.wav").write_bytes(b"noise")
    (folder / "notes.txt").write_text("no audio")
    ended = command(folder, "--dry-run")
    assert ended.status == 0
    assert "would do 2 files (0.2s of audio); 0 are done, 1 skipped, 1 refused" in ended.out
    assert "deep/b.wav -> deep/b.wav.avae, deep/b.wav.resynth.wav" in ended.out
    assert "noise.wav: expected audio" in ended.err
    assert [path.name for path in folder.parent.iterdir()] == ["in"]


def test_dry_run_of_many_files_is_short(command: Command, folder: Path) -> None:
    for index in range(30):
        write_tone(folder / f"{index:02d}.wav")
    assert "and 12 more" in command(folder, "--dry-run").out


def test_a_running_batch_keeps_the_second_one_out(command: Command, folder: Path) -> None:
    output = folder.parent / "out"
    with OutputLock(output, folder):
        ended = command(folder, "--output-dir", output)
    assert ended.status == 1
    assert f"process {os.getpid()} on " in ended.err
    assert command(folder, "--output-dir", output).status == 0


def test_a_full_disk_ends_the_batch_and_a_rerun_goes_on(command: Command, folder: Path) -> None:
    write_tone(folder / "full.wav")
    ended = command(folder, "--workers", 1)
    assert ended.status == 1
    assert "No space left on device" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert not (folder.parent / "in_audiovae" / ".audiovae_work").exists()
    (folder / "full.wav").unlink()
    assert command(folder).status == 0


@pytest.mark.parametrize("only_errors", [False, True])
def test_a_batch_that_died_before_its_report_gets_one(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, only_errors: bool
) -> None:
    if only_errors:
        for path in folder.rglob("*.wav"):
            path.write_bytes(b"noise")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("pipelines.report.write_report", die)
        assert command(folder).status == 130
    output = folder.parent / "in_audiovae"
    assert not (output / "summary.json").exists()
    ended = command(folder)
    assert ended.status == (3 if only_errors else 0)
    assert ended.out.startswith("nothing to do: ")
    assert (output / "summary.json").exists()
    assert (output / "report.html").exists()


def test_a_report_that_fails_does_not_fail_the_batch(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no picture today")

    monkeypatch.setattr("pipelines.report.write_report", fail)
    ended = command(folder)
    assert ended.status == 0
    assert "could not write the report (no picture today)" in ended.err
    assert "report:" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "expected a directory, a file or a pattern, got 'nowhere'"),
        (("in", "--do", "nonsense"), "--do: expected compress, resynthesize, got 'nonsense'"),
        (("in", "--quality", "9"), "--quality"),
        (("in", "--format", "mp3"), "'mp3' is not one of 'wav', 'flac', 'ogg'"),
        (("in", "--executor", "cloud"), "'cloud' is not one of 'auto', 'local', 'ray'"),
        (("in", "--workers", "0"), "--workers"),
        (("in/a.wav", "in/deep/b.wav"), "expected one INPUT, got 2"),
        (("in", "--output-dir", "in"), "does not contain the input"),
        ((), "Missing argument 'INPUT"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    command: Command,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    ended = command(*arguments)
    assert ended.status == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert [path.name for path in folder.parent.iterdir()] == ["in"]


def test_summary_tells_counts_settings_and_times(command: Command, folder: Path) -> None:
    command(folder, "--quality", 3)
    summary = json.loads((folder.parent / "in_audiovae/summary.json").read_text())
    assert summary["totals"]["ok"] == 2
    assert summary["recipe"]["quality"] == 3
    assert summary["model"]["id"] == "0123456789abcdef"
    assert summary["run"]["stage_seconds"] == {"decode": 0.2, "vocode": 0.4}


def test_help_has_an_example(command: Command) -> None:
    ended = command("--help")
    assert ended.status == 0
    assert "Example:" in ended.out
    assert "Exit status:" in ended.out


def test_nothing_to_do_imports_neither_torch_nor_a_runner(command: Command, folder: Path) -> None:
    for index in range(1000):
        write_tone(folder / f"{index:04d}.wav", seconds=0.01)
    (folder / "noise.wav").write_bytes(b"noise")
    command(folder, "--workers", 2)
    script = (
        "import sys, time\n"
        "import pipelines.runner.recipe\n"
        "pipelines.runner.recipe.weights_identity = lambda checkpoint: 'w' * 16\n"
        "from pipelines.batch_transform import main\n"
        "status = main(sys.argv[1:])\n"
        "print(status, 'torch' in sys.modules, 'ray' in sys.modules)\n"
        "print(time.process_time())\n"  # others may be busy here
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    said, facts, seconds = ended.stdout.splitlines()
    assert said == "nothing to do: 1002 files are done, 1 failed"
    assert facts == "3 False False"
    assert float(seconds) < NOTHING_TO_DO_SECONDS
