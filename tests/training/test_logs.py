"""`audiovae.training.logs`: rows that a killed run did not live to own are dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiovae.training.logs import CsvLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of the steps 10, 20 and 30."""
    path = tmp_path / "metrics.csv"
    log = CsvLog(path, 0)
    for step in (10, 20, 30):
        log.write(step, {"loss": 1 / step, "kbps": float(step)})
    return path


def test_a_row_a_step_under_named_columns(path: Path) -> None:
    assert path.read_text().splitlines() == [
        "step,loss,kbps",
        "10,0.1,10",
        "20,0.05,20",
        "30,0.0333333,30",
    ]


def test_a_resumed_run_drops_what_came_after_its_step(path: Path) -> None:
    log = CsvLog(path, 25)
    assert log.last_step == 20
    log.write(30, {"loss": 0.5, "kbps": 1.0})
    assert path.read_text().splitlines()[1:] == ["10,0.1,10", "20,0.05,20", "30,0.5,1"]


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_row_that_a_kill_cut_short_is_dropped(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    assert CsvLog(path, 1000).last_step == 20
    assert path.read_text().splitlines()[1:] == ["10,0.1,10", "20,0.05,20"]


def test_the_same_bytes_whether_resumed_or_not(path: Path) -> None:
    whole = path.read_bytes()
    CsvLog(path, 30)
    assert path.read_bytes() == whole


def test_a_new_run_begins_anew(path: Path) -> None:
    assert CsvLog(path, 0).last_step == 0
    assert not path.exists()


def test_a_run_that_logged_nothing_yet_begins_anew(path: Path) -> None:
    log = CsvLog(path, 5)
    log.write(10, {"other": 1.0})
    assert path.read_text().splitlines() == ["step,other", "10,1"]


def test_a_column_that_comes_later_is_empty_before(path: Path) -> None:
    log = CsvLog(path, 20)
    log.write(30, {"kbps": 4.0, "new": 5.0})
    log.write(40, {"loss": 0.1, "kbps": 4.0, "new": 5.0})
    lines = ["step,loss,kbps,new", "10,0.1,10,", "20,0.05,20,", "30,,4,5", "40,0.1,4,5"]
    assert path.read_text().splitlines() == lines
    CsvLog(path, 30).write(40, {"loss": 0.1, "kbps": 4.0, "new": 5.0})
    assert path.read_text().splitlines() == lines
