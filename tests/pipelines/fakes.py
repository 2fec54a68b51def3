"""A transformer without sound: outputs are a function of the source's bytes and the settings.

What a file asks for stands in its name: `bad` is refused by its content, `boom` and `memory` raise,
`slow` takes 0.25 s, `gated` waits until `.open` lies beside it, `full` finds the disk full,
`part-boom` fails in a span, `killer` ends the process that works on it, `stuck` keeps it for ever.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import time
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiovae.commands import end_process
from audiovae.errors import AudioVAEError, AudioWriteError, CorruptAudioError
from pipelines.batch_transform import main
from pipelines.runner.worker import Worker, Workplace

SLOW_SECONDS = 0.25
PATIENCE = "AUDIOVAE_TEST_PATIENCE"  # seconds, where a test is to see it end
GATE_NAME = ".open"
AT_GATE_NAME = ".at_gate"
"""Appears beside the gate when a unit has come to it."""
GATE_SECONDS = 240.0
_NO_SCALE = {"colours": ("#000000", "#ffffff"), "range_db": 80.0, "ticks": ()}
TONE_RATE = 8_000


@dataclass(frozen=True)
class FakeFileReport:
    seconds: float
    sample_rate: int
    num_channels: int
    estimated_kbps: float
    kbps: float | None
    log_mel_l1_db: float | None
    timings_seconds: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class FakeSpanReport:
    first: int
    last: int


def fake_plan_spans(info: Any) -> tuple[tuple[int, int], ...]:
    """Three spans for anything longer than 20 s."""
    return ((0, 2), (2, 4), (4, 5)) if info.duration_seconds > 20 else ((0, 1),)


class FakeTransformer:
    def __init__(self, quality: int = 5) -> None:
        self.quality = quality
        self.calls: list[list[str]] = []

    def process_files(
        self, jobs: Sequence[tuple[Path, Mapping[str, Path]]]
    ) -> list[FakeFileReport | AudioVAEError]:
        names = [source.name for source, _ in jobs]
        self.calls.append(names)
        if any("slow" in name for name in names):
            time.sleep(SLOW_SECONDS)
        if any("gated" in name for name in names):
            _wait_for(jobs[0][0].parent / GATE_NAME)
        if any("killer" in name for name in names):
            os._exit(9)
        while any("stuck" in name for name in names):
            time.sleep(SLOW_SECONDS)
        if any("memory" in name for name in names):
            raise MemoryError
        if any("boom" in name for name in names):
            raise ZeroDivisionError("a fault in the model")
        return [self._one(source, outputs) for source, outputs in jobs]

    def process_span(
        self, source: Path, part: Path, first_chunk: int, last_chunk: int
    ) -> FakeSpanReport:
        if "part-boom" in source.name and first_chunk:
            raise CorruptAudioError(f"{source.name}: broken at chunk {first_chunk}")
        part.write_bytes(self._digest(source) + bytes([first_chunk, last_chunk]))
        return FakeSpanReport(first_chunk, last_chunk)

    def assemble(
        self,
        source: Path,
        parts: Sequence[Path],
        reports: Sequence[FakeSpanReport],
        outputs: Mapping[str, Path],
    ) -> FakeFileReport:
        assert [(r.first, r.last) for r in reports] == [(0, 2), (2, 4), (4, 5)]
        for destination in outputs.values():
            destination.write_bytes(b"".join(part.read_bytes() for part in parts))
        return self._report()

    def _one(self, source: Path, outputs: Mapping[str, Path]) -> FakeFileReport | AudioVAEError:
        if "bad" in source.name:
            return CorruptAudioError(f"{source.name}: expected whole frames, got noise")
        if "full" in source.name:
            error = AudioWriteError("cannot write")
            error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
            return error
        for destination in outputs.values():
            destination.write_bytes(self._digest(source))
        return self._report()

    def _digest(self, source: Path) -> bytes:
        settings = f"{self.quality}".encode()
        return hashlib.sha256(source.read_bytes() + settings).digest()

    def _report(self) -> FakeFileReport:
        return FakeFileReport(1.0, 44_100, 1, 2.8, 3.0, 2.5, {"decode": 0.1, "vocode": 0.2})


def _wait_for(gate: Path) -> None:
    gate.with_name(AT_GATE_NAME).touch()
    deadline = time.monotonic() + GATE_SECONDS
    while not gate.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class FakeWorkplace(Workplace):
    """A place whose workers have the fake model; it can be sent to another process."""

    def open(self) -> Worker:
        recipe = self.recipe
        transformer: Any = FakeTransformer(recipe.quality)
        return Worker(self, transformer, "fake", "0123456789abcdef")


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fake in the place of the model, for commands run in this process."""
    monkeypatch.setattr("pipelines.runner.batch.Workplace", FakeWorkplace)
    monkeypatch.setattr(
        "pipelines.runner.batch._LazySpanPlanner.__call__", lambda _, info: fake_plan_spans(info)
    )
    monkeypatch.setattr("pipelines.runner.batch.resolve_device", lambda asked: "cpu")
    monkeypatch.setattr("pipelines.runner.recipe.weights_identity", lambda checkpoint: "w" * 16)
    if PATIENCE in os.environ:
        monkeypatch.setattr(
            "pipelines.runner.patience.Patience.seconds_for",
            lambda _, unit: float(os.environ[PATIENCE]),
        )
    # The fake's outputs are not audio, and pictures need torch: test_report.py looks at them.
    monkeypatch.setattr("pipelines.report._picture", lambda source, output: None)
    monkeypatch.setattr("pipelines.report._scale", lambda: _NO_SCALE)


def write_tone(path: Path, seconds: float = 0.1, hz: float = 440.0) -> Path:
    """A small mono wav file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * TONE_RATE)) / TONE_RATE
    samples = (np.sin(2 * np.pi * hz * times) * 12_000).astype("<i2")
    with path.open("wb") as file, wave.open(file, "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(TONE_RATE)
        tone.writeframes(samples.tobytes())
    return path


def contents(folder: Path, pattern: str = "*.resynth.*") -> dict[str, bytes]:
    """Every resynthesised file below a folder with its bytes."""
    return {
        os.fsdecode(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob(pattern))
    }


def published(folder: Path) -> list[Path]:
    """What a run that still works has put in place, at the top: below, its work folder changes."""
    return sorted(folder.glob("*.resynth.*"))


def all_contents(folder: Path) -> dict[str, bytes]:
    """Every output, compressed ones included (but not the ledger and its company)."""
    return contents(folder) | contents(folder, "*.avae")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The manifest."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def statuses(folder: Path) -> dict[str, str]:
    """Path to status, in the order of the manifest."""
    return {row["path"]: row["status"] for row in rows(folder)}


if __name__ == "__main__":
    # By its full name, so that another process can find the fake.
    importlib.import_module("tests.pipelines.fakes").install(pytest.MonkeyPatch())
    end_process(main())
