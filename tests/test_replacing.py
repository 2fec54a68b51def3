"""Files appear whole, or not at all."""

from pathlib import Path

import pytest

from audiovae.replacing import replacing


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_name_when_the_block_ends(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path, durable=durable) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_block_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        _write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")  # as long as a name can be
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def _write_half(path: Path) -> None:
    with replacing(path) as draft:
        draft.write_text("half")
        raise OSError("full")
