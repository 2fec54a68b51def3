"""Classes of sounds: from a table, from manifests, from folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiovae.errors import ConfigError
from audiovae.labels import clip_labels, read_labels

NAMES = ("drums/kick.wav", "drums/snare.wav", "loose.wav", "strings/violin/a.wav")


def test_folders_name_what_nothing_else_does(tmp_path: Path) -> None:
    source = tmp_path / "sounds"
    source.mkdir()
    assert clip_labels(NAMES, source, None) == ("drums", "drums", "sounds", "violin")


def test_a_manifest_beside_the_files_wins_over_the_folder(tmp_path: Path) -> None:
    (tmp_path / "drums").mkdir()
    (tmp_path / "drums" / "manifest.csv").write_text("file,hz,class\nkick.wav,60,low\n")
    assert clip_labels(NAMES, tmp_path, None)[:2] == ("low", "drums")


def test_a_table_says_it_by_path_or_by_name(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("\ufefffile,class\ndrums/kick.wav,a\nsnare.wav, b \na.wav,\n")
    found = clip_labels(NAMES, tmp_path / "s", table)
    assert found == ("a", "b", "s", "violin")


@pytest.mark.parametrize(("content", "got"), [("name,kind\n", "name, kind"), ("", "an empty file")])
def test_a_table_without_its_columns_is_refused(tmp_path: Path, content: str, got: str) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(ConfigError, match=f"columns file and class, got {got}"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match="expected a CSV file of labels"):
        read_labels(tmp_path / "none.csv")
