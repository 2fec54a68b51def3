"""Fixtures of the pipeline tests: a model without sound, and a command that runs in-process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.batch_transform import main
from tests.pipelines import fakes


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`batch_transform` with the fake model."""
    fakes.install(monkeypatch)

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Ended(status, written.out, written.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An input folder: two tones, one deeper; what a test adds is its own."""
    fakes.write_tone(tmp_path / "in" / "a.wav")
    fakes.write_tone(tmp_path / "in" / "deep" / "b.wav", hz=660)
    return tmp_path / "in"
