from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiovae.audio.listing import LOCK_NAME
from audiovae.replacing import draft_of
from pipelines.runner.lock import OutputLock, previous_root
from pipelines.runner.stopping import FatalProblem
from pipelines.runner.storage import LocalStorage

HOLDER = """
import sys, time
from pathlib import Path
from pipelines.runner.lock import OutputLock, previous_root
from pipelines.runner.storage import LocalStorage
with OutputLock(Path(sys.argv[1]), Path("/inputs")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_run_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with (
        OutputLock(tmp_path / "out", tmp_path),
        pytest.raises(FatalProblem, match=f"process {os.getpid()} on "),
        OutputLock(tmp_path / "out", tmp_path),
    ):
        pass


def test_lock_dies_with_its_process_and_remembers_the_root(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FatalProblem, match=f"process {holder.pid} on "):
            OutputLock(tmp_path, tmp_path).__enter__()
        holder.kill()
    assert previous_root(LocalStorage(tmp_path)) == "/inputs"
    with OutputLock(tmp_path, tmp_path):
        assert previous_root(LocalStorage(tmp_path)) == str(tmp_path)


def test_drafts_of_a_killed_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    draft_of(tmp_path / "report.html").write_text("half")
    download = tmp_path / ".somebody_else.part"
    download.touch()
    with OutputLock(tmp_path, tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK_NAME, download.name}


def test_a_folder_in_the_place_of_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(FatalProblem, match=LOCK_NAME), OutputLock(tmp_path, tmp_path):
        pass


def test_damaged_lock_file_does_not_matter(tmp_path: Path) -> None:
    for damaged in (b"\xff not json", b"[1]"):
        (tmp_path / LOCK_NAME).write_bytes(damaged)
        assert previous_root(LocalStorage(tmp_path)) == ""
        with OutputLock(tmp_path, tmp_path):
            pass


def test_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(FatalProblem, match="expected a writable output directory"),
        OutputLock(tmp_path / "file" / "out", tmp_path),
    ):
        pass
