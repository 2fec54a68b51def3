from __future__ import annotations

import io

import pytest

from pipelines.runner.progress import PLAIN_LINE_EVERY_SECONDS, Progress, Tally


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_every_few_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(Tally(100.0, 10), stream, clock) as progress:
        progress.tick()
        assert stream.getvalue() == ""
        progress.tally.done_seconds, progress.tally.done_files = 50.0, 4
        progress.tally.failed_files = 1
        clock.now += PLAIN_LINE_EVERY_SECONDS
        progress.tick()
        progress.tick()
    assert stream.getvalue() == (
        "progress=0.500 audio_seconds=50/100 files=4/10 failed=1 rate=10.0x left=5.0s\n"
    )


def test_time_left_is_unknown_before_anything_is_done() -> None:
    clock = Clock()
    progress = Progress(Tally(100.0, 10), io.StringIO(), clock)
    clock.now += 3
    assert "rate=0.0x left=unknown" in progress.plain_line()
    assert progress.wall_seconds == 3


def test_a_terminal_gets_a_live_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(Tally(100.0, 10, 25.0, 2, 1), stream, Clock()) as progress:
        progress.tick()
    written = stream.getvalue()
    assert "25%" in written
    assert "25s of 1m40s of audio" in written
    assert "2/10 files" in written
    assert "1 failed" in written
    assert "progress=" not in written
    assert written.endswith("\x1b[2K")  # the line is erased at the end


def test_nothing_to_measure_is_all_done() -> None:
    assert Tally(0.0, 0).fraction == 1.0
    assert Tally(10.0, 1, 10.5).fraction == 1.0
