from __future__ import annotations

import os
from pathlib import Path

import pytest

from audiovae.audio.listing import LOCK_NAME
from audiovae.commands import UsageProblem
from pipelines.runner.inputs import locate, survey
from pipelines.runner.storage import LocalStorage
from tests.pipelines.fakes import write_tone


def paths_of(argument: Path | str, output: Path) -> list[str]:
    return [entry.path for entry in survey(locate(str(argument)), LocalStorage(output))]


def test_directory_is_walked_and_sorted(folder: Path, tmp_path: Path) -> None:
    write_tone(folder / "B.wav")
    (folder / "notes.txt").write_text("x")
    assert paths_of(folder, tmp_path / "out") == ["B.wav", "a.wav", "deep/b.wav", "notes.txt"]


def test_hidden_entries_are_left_out(folder: Path, tmp_path: Path) -> None:
    write_tone(folder / ".hidden.wav")
    write_tone(folder / ".git" / "c.wav")
    assert paths_of(folder, tmp_path / "out") == ["a.wav", "deep/b.wav"]


def test_own_output_is_left_out(folder: Path) -> None:
    write_tone(folder / "out" / "old.wav")
    assert paths_of(folder, folder / "out") == ["a.wav", "deep/b.wav"]


def test_output_of_another_run_is_one_skipped_row(folder: Path, tmp_path: Path) -> None:
    write_tone(folder / "other" / "old.wav")
    (folder / "other" / LOCK_NAME).touch()
    entries = survey(locate(str(folder)), LocalStorage(tmp_path / "out"))
    other = next(entry for entry in entries if entry.path == "other")
    assert other.harmless
    assert "another run" in other.problem
    assert len(entries) == 3


@pytest.mark.parametrize("output", ["in", "."])
def test_output_must_not_contain_the_input(folder: Path, tmp_path: Path, output: str) -> None:
    with pytest.raises(UsageProblem, match="does not contain the input"):
        survey(locate(str(folder)), LocalStorage(tmp_path / output))
    with pytest.raises(UsageProblem, match="does not contain the input"):
        survey(locate(str(folder / "a.wav")), LocalStorage(tmp_path / output))


def test_circles_of_links_end_and_real_names_win(folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "aaa_link").symlink_to(folder / "deep")
    (folder / "self").symlink_to(folder / "self")
    entries = {
        entry.path: entry for entry in survey(locate(str(folder)), LocalStorage(tmp_path / "out"))
    }
    assert sorted(entries) == ["a.wav", "deep/b.wav", "self"]
    assert entries["self"].harmless


def test_links_to_places_elsewhere_are_followed_once(folder: Path, tmp_path: Path) -> None:
    write_tone(tmp_path / "library" / "c.wav")
    (folder / "one").symlink_to(tmp_path / "library")
    (folder / "two").symlink_to(tmp_path / "library")
    assert paths_of(folder, tmp_path / "out") == ["a.wav", "deep/b.wav", "one/c.wav"]


def test_broken_link_is_an_error_only_if_it_claims_to_be_audio(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    entries = {
        entry.path: entry for entry in survey(locate(str(folder)), LocalStorage(tmp_path / "out"))
    }
    assert entries["gone.wav"].problem
    assert not entries["gone.wav"].harmless
    assert entries["gone.txt"].harmless


def test_pipes_are_never_opened(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.wav")
    entries = {
        entry.path: entry for entry in survey(locate(str(folder)), LocalStorage(tmp_path / "out"))
    }
    assert entries["pipe.wav"].problem == "not a regular file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_unreadable_directory_is_an_error(folder: Path, tmp_path: Path) -> None:
    (folder / "locked").mkdir(mode=0)
    entries = {
        entry.path: entry for entry in survey(locate(str(folder)), LocalStorage(tmp_path / "out"))
    }
    assert "cannot list" in entries["locked"].problem


def test_vanished_directory_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    entries = {
        entry.path: entry for entry in survey(locate(str(folder)), LocalStorage(tmp_path / "out"))
    }
    assert entries["deep"].problem == "cannot list this directory: Permission denied"
    assert not entries["deep"].harmless


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["a.wav"]),
        ("**/*.wav", ["a.wav", "deep/b.wav"]),
        ("*/*.wav", ["deep/b.wav"]),
        ("[ab].wav", ["a.wav"]),
        ("dee?/*", ["deep/b.wav"]),
    ],
)
def test_patterns(folder: Path, tmp_path: Path, pattern: str, expected: list[str]) -> None:
    assert paths_of(folder / pattern, tmp_path / "out") == expected


def test_a_name_with_brackets_is_a_file_if_it_exists(folder: Path, tmp_path: Path) -> None:
    write_tone(folder / "take [1].wav")
    assert paths_of(folder / "take [1].wav", tmp_path / "out") == ["take [1].wav"]


def test_default_outputs_lie_beside_the_input(folder: Path, tmp_path: Path) -> None:
    beside = tmp_path / "in_audiovae"
    assert locate(str(folder)).default_output == str(beside)
    assert locate(f"{folder}/").default_output == str(beside)
    assert locate(f"{folder}/*.wav").default_output == str(beside)
    assert locate(str(folder / "a.wav")).default_output == str(folder / "a.wav_audiovae")
    with pytest.raises(UsageProblem, match="--output-dir"):
        _ = locate("/").default_output


def test_relative_and_absolute_mean_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("in") == locate(str(folder)) == locate("./in/../in/")
    monkeypatch.chdir(folder)
    assert locate(".") == locate(str(folder))


@pytest.mark.parametrize("argument", ["nothing", "nothing/*.wav", "in/*.mp3", "empty"])
def test_nothing_there_is_wrong_usage(folder: Path, tmp_path: Path, argument: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageProblem, match="expected"):
        paths_of(tmp_path / argument, tmp_path / "out")
