from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.runner.inputs import Found, locate, survey
from pipelines.runner.plan import OutputGuard, Verdict, examine
from pipelines.runner.recipe import Recipe
from pipelines.runner.storage import LocalStorage
from pipelines.runner.units import FileFailed, FileSkipped, Task
from tests.pipelines.fakes import TONE_RATE, fake_plan_spans, write_tone

RECIPE = Recipe(("resynthesize",), "base", "w", 6, "wav")


def guard(output: Path, overwrite: bool = False, known: tuple[str, ...] = ()) -> OutputGuard:
    return OutputGuard(LocalStorage(output).exists, RECIPE, overwrite, lambda path: known)


def judge(folder: Path, output_guard: OutputGuard | None = None) -> dict[str, Verdict]:
    output = folder.parent / "out"
    found = survey(locate(str(folder)), LocalStorage(output))
    verdicts = examine(found, LocalStorage(folder), output_guard or guard(output), fake_plan_spans)
    return {verdict.path: verdict for verdict in verdicts}


def test_audio_becomes_a_task(folder: Path) -> None:
    assert judge(folder)["a.wav"] == Task("a.wav", 0.1, 1)


def test_a_long_file_has_spans(folder: Path) -> None:
    write_tone(folder / "long.wav", seconds=21)
    assert judge(folder)["long.wav"] == Task("long.wav", 21.0, 1, ((0, 2), (2, 4), (4, 5)))


def test_content_decides_and_a_claim_obliges(folder: Path) -> None:
    (folder / "notes.txt").write_text("no audio")
    (folder / "empty").touch()
    (folder / "noise.wav").write_bytes(b"no audio either, but it claims to be")
    (folder / "silence.mp3").touch()
    write_tone(folder / "tone.txt")
    verdicts = judge(folder)
    assert verdicts["notes.txt"] == FileSkipped("notes.txt", "not audio")
    assert verdicts["empty"] == FileSkipped("empty", "not audio")
    assert isinstance(verdicts["tone.txt"], Task)
    noise = verdicts["noise.wav"]
    assert isinstance(noise, FileFailed)
    assert noise.kind == "NotAudioError"
    assert noise.reason.startswith("expected audio")  # without the path, which the row has
    assert not noise.retry
    assert isinstance(verdicts["silence.mp3"], FileFailed)


def test_the_one_file_named_is_not_skipped(folder: Path) -> None:
    named = folder / "notes.txt"
    named.write_text("no audio")
    (verdict,) = examine(
        survey(locate(str(named)), LocalStorage(folder.parent / "out")),
        LocalStorage(folder),
        guard(folder.parent / "out"),
        fake_plan_spans,
    )
    assert isinstance(verdict, FileFailed)
    assert verdict.reason == "expected audio, got a file that is not audio"


def test_a_truncated_file_is_refused(folder: Path) -> None:
    data = (folder / "a.wav").read_bytes()
    (folder / "cut.wav").write_bytes(data[: len(data) // 2])
    cut = judge(folder)["cut.wav"]
    assert isinstance(cut, FileFailed)
    assert (cut.kind, cut.retry) == ("TruncatedAudioError", False)


def test_what_cannot_be_looked_at_is_not_skipped(folder: Path) -> None:
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    gone = judge(folder)["gone.wav"]
    assert isinstance(gone, FileFailed)
    assert gone.retry


def test_a_file_without_permission_is_not_called_something_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "secret").write_bytes(b"?")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    secret = judge(folder)["secret"]
    assert isinstance(secret, FileFailed)
    assert (secret.kind, secret.retry) == ("PermissionError", True)


def test_a_fault_while_probing_is_the_files_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(path: Path) -> object:
        raise ZeroDivisionError("a fault in a parser")

    monkeypatch.setattr("pipelines.runner.probing.probe_audio", probe)
    verdict = judge(folder)["a.wav"]
    assert verdict == FileFailed("a.wav", "ZeroDivisionError", "a fault in a parser", retry=True)


def test_existing_outputs_are_safe(folder: Path) -> None:
    output = write_tone(folder.parent / "out" / "a.wav.resynth.wav").parent
    refused = judge(folder)["a.wav"]
    assert isinstance(refused, FileFailed)
    assert refused.kind == "OutputExists"
    assert "--overwrite" in refused.reason
    assert isinstance(judge(folder, guard(output, overwrite=True))["a.wav"], Task)
    assert isinstance(judge(folder, guard(output, known=("a.wav.resynth.wav",)))["a.wav"], Task)


def test_an_output_whose_name_no_file_system_takes_is_refused(folder: Path) -> None:
    name = f"{'n' * 240}.wav"  # itself short enough
    write_tone(folder / name)
    refused = judge(folder, guard(folder.parent / "out", overwrite=True))[name]
    assert isinstance(refused, FileFailed)
    assert (refused.kind, refused.retry) == ("NameTooLong", True)
    assert "this one would have 256" in refused.reason


def test_a_dangling_link_in_the_way_counts_as_existing(folder: Path) -> None:
    output = folder.parent / "out"
    output.mkdir()
    (output / "a.wav.resynth.wav").symlink_to(folder / "nowhere")
    assert isinstance(judge(folder)["a.wav"], FileFailed)


def test_order_is_kept_and_the_source_is_read_lazily(tmp_path: Path) -> None:
    count, read = 5000, 0

    def found() -> Iterator[Found]:
        nonlocal read
        for index in range(count):
            read += 1
            yield Found(f"{index:05d}", 1, 1, "a test", harmless=True)

    verdicts = examine(found(), LocalStorage(tmp_path), guard(tmp_path), None)
    first = next(verdicts)
    assert read < count
    paths = [first.path, *(verdict.path for verdict in verdicts)]
    assert paths == [f"{index:05d}" for index in range(count)]


def test_tone_is_what_the_tests_take_it_for(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "t.wav", seconds=0.5)
    assert path.stat().st_size == 44 + TONE_RATE  # 16-bit, half a second
