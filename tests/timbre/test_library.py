"""Named timbres: what is saved comes back, and nothing else is believed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiovae.errors import CheckpointError, ConfigError
from audiovae.timbre.library import (
    TimbreLibrary,
    default_library,
    facts_from_bytes,
    saved_timbre,
    timbre_bytes,
    timbre_from_bytes,
)
from audiovae.timbre.value import Timbre


def timbre(*, has_code: bool = True) -> Timbre:
    draw = torch.Generator().manual_seed(0)
    means = (torch.randn(3, generator=draw), torch.randn(4, generator=draw))
    code = torch.randn(5, generator=draw) if has_code else None
    return Timbre(code, means, (0, 1), "0123456789abcdef")


@pytest.fixture
def library(tmp_path: Path) -> TimbreLibrary:
    return TimbreLibrary(tmp_path / "deep" / "library")


@pytest.mark.parametrize("has_code", [True, False])
def test_a_timbre_comes_back(library: TimbreLibrary, has_code: bool) -> None:
    saved = timbre(has_code=has_code)
    library.save("oboe", timbre_bytes(saved, "timbre", 3))
    found = timbre_from_bytes(library.read("oboe"), "oboe")
    assert (found.levels, found.model_id) == (saved.levels, saved.model_id)
    for a, b in zip(found.group_means, saved.group_means, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(found.code, saved.code) if has_code else found.code is None
    facts = library.facts("oboe")
    assert (facts.model_name, facts.num_files, facts.levels) == ("timbre", 3, (0, 1))


def test_the_same_timbre_makes_the_same_bytes_in_every_process() -> None:
    here = timbre_bytes(timbre(), "timbre", 3)
    code = (
        "import sys; from tests.timbre.test_library import timbre;"
        "from audiovae.timbre.library import timbre_bytes;"
        "sys.stdout.buffer.write(timbre_bytes(timbre(), 'timbre', 3))"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert there.stdout == here


def test_names_are_listed_replaced_only_on_request_and_removed(library: TimbreLibrary) -> None:
    data = timbre_bytes(timbre(), "timbre", 1)
    assert library.names() == []
    for name in ("violin", "alto-2"):
        library.save(name, data)
    assert library.names() == ["alto-2", "violin"]
    with pytest.raises(ConfigError, match="add --overwrite"):
        library.save("violin", b"other")
    assert library.read("violin") == data
    library.save("violin", b"other", overwrite=True)
    assert library.read("violin") == b"other"
    library.remove("violin")
    assert [path.name for path in library.folder.iterdir()] == ["alto-2.timbre"]
    with pytest.raises(CheckpointError, match=r"\(alto-2\), got 'violin'"):
        library.remove("violin")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65, "-flag"])
def test_a_name_stays_inside_the_library(library: TimbreLibrary, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name of up to 64 letters"):
        library.save(name, b"")
    assert not library.folder.exists()


def test_hostile_files_are_refused() -> None:
    good = timbre_bytes(timbre(), "timbre", 1)
    newer = good.replace(b'format_version\\": 1', b'format_version\\": 2')
    assert newer != good
    with pytest.raises(CheckpointError, match="version 1, got 2"):
        timbre_from_bytes(newer, "x")
    without = good.replace(b'"mean1"', b'"meanX"')
    damaged = [b"", b"RIFF", good[:40], good[:-4], b"\xff" * 100, without, good[:8] + b"[]" * 90]
    damaged += [good.replace(b"levels", b"lavels"), good.replace(b"[0, 1]", b"777777")]
    for data in damaged:
        with pytest.raises(CheckpointError, match="damaged or foreign"):
            timbre_from_bytes(data, "x")


@pytest.mark.parametrize(
    "code", [torch.tensor([1.0, torch.nan]), torch.ones(2, 2), torch.ones(2).long()]
)
def test_only_vectors_of_finite_numbers_are_taken(code: torch.Tensor) -> None:
    data = timbre_bytes(replace(timbre(), code=code), "timbre", 1)
    with pytest.raises(CheckpointError, match="vectors of finite numbers"):
        timbre_from_bytes(data, "x")


def test_facts_need_only_the_beginning() -> None:
    data = timbre_bytes(timbre(), "timbre", 2)
    header = 8 + int.from_bytes(data[:8], "little")
    assert facts_from_bytes(data[:header], "x").num_files == 2


def test_a_path_is_told_from_a_name(
    library: TimbreLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = timbre_bytes(timbre(), "timbre", 1)
    library.save("oboe", data)
    (tmp_path / "mine.timbre").write_bytes(data)
    (tmp_path / "flutes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert saved_timbre("oboe", library) == data
    assert saved_timbre("mine.timbre", library) == data
    for audio in ("flutes", "nowhere.wav", "deep/er"):
        assert saved_timbre(audio, library) is None
    with pytest.raises(CheckpointError, match=r"oboo: expected an audio file.*\(oboe\)"):
        saved_timbre("oboo", library)


def test_the_library_is_where_the_system_keeps_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_library() == tmp_path / "audiovae" / "timbres"
