from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from pipelines.runner.work_folder import WorkFolder, remove_orphans


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_lives_as_long_as_its_owner(temporary: Path) -> None:
    folder = WorkFolder()
    (folder.path / "deep").mkdir()
    (folder.path / "deep" / "file").write_bytes(b"x")
    remove_orphans()
    assert (folder.path / "deep" / "file").exists()
    folder.close()
    assert not list(temporary.iterdir())


def test_a_folder_whose_owner_was_killed_is_removed(temporary: Path) -> None:
    if not (child := os.fork()):
        (WorkFolder().path / "file").write_bytes(b"x")
        os._exit(9)
    os.waitpid(child, 0)
    assert len(list(temporary.glob("audiovae-*/file"))) == 1
    remove_orphans()
    assert not list(temporary.iterdir())


def test_what_is_not_ours_stays(temporary: Path) -> None:
    (temporary / "audiovae-of-somebody").mkdir()
    (temporary / "audiovae-file").write_bytes(b"")
    remove_orphans()
    assert len(list(temporary.iterdir())) == 2
