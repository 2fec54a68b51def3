from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path

import pytest
import typer

from audiovae.commands import Interrupted, UsageProblem, one_line, run_command
from audiovae.errors import CheckpointError
from pipelines.runner.stopping import FatalProblem, LogFile, StopRequest


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain text", "plain text"),
        ("two\nlines\tand  more", "two lines and more"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("byte \udcff", "byte \\udcff"),
        ("ünï 𝄞", "ünï 𝄞"),
        ("left\u202eright", "left\\u202eright"),
    ],
)
def test_one_line_is_one_harmless_line(text: str, line: str) -> None:
    assert one_line(text) == line
    line.encode("utf-8")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UsageProblem("expected x, got y"), 2, "expected x, got y"),
        (FatalProblem("disk full"), 1, "disk full"),
        (CheckpointError("damaged"), 1, "damaged"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (IsADirectoryError(21, "Is a", "x.csv"), 1, "x.csv: expected a file, got a folder; move"),
        (PermissionError(13, "No way", ".part", None, "x"), 1, "No way: x; mend that and run the"),
        (Interrupted("stopped"), 130, "stopped"),
        (KeyboardInterrupt(), 130, "run the same command again"),
        (typer.Abort(), 130, "run the same command again"),
        (typer.Exit(3), 3, ""),
        (None, 0, ""),
    ],
)
def test_every_end_has_a_status_and_at_most_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, status: int, says: str
) -> None:
    app = typer.Typer()

    @app.command()
    def command() -> None:
        if error is not None:
            raise error

    assert run_command(app, [], "test") == status
    written = capsys.readouterr()
    assert says in written.err
    assert written.err.count("\n") == (1 if says else 0)


def test_a_file_that_is_cut_short_is_no_interrupt() -> None:
    app = typer.Typer()

    @app.command()
    def command() -> None:
        raise EOFError("no more")

    with pytest.raises(EOFError, match="no more"):
        run_command(app, [], "test")


def test_an_unknown_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command()(lambda: None)
    assert run_command(app, ["--nonsense"], "test") == 2
    written = capsys.readouterr()
    assert written.err.startswith("error: No such option: --nonsense")
    assert written.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_in_one_line(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while nothing waits for one: during imports, or in a command of one file."""
    before = signal.getsignal(signal.SIGTERM)
    app = typer.Typer()
    app.command()(lambda: os.kill(os.getpid(), number))
    assert run_command(app, [], "test") == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_between_units_stops_at_once() -> None:
    with StopRequest() as stop, pytest.raises(Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


def test_a_signal_during_units_asks_and_a_second_insists() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest(grace_seconds=60.0) as stop:
        stop.immediate = False
        assert (stop.requested, stop.expired) == (False, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.requested, stop.expired) == (True, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.requested, stop.expired) == (True, True)
    assert signal.getsignal(signal.SIGINT) is before


def test_patience_has_an_end() -> None:
    with StopRequest(grace_seconds=0.0) as stop:
        stop.immediate = False
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.expired


def test_outside_the_main_thread_no_handler_is_set() -> None:
    entered = []

    def enter() -> None:
        with StopRequest() as stop:
            entered.append(stop.requested)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [False]


def test_log_file_takes_tracebacks_and_gives_loggers_back(tmp_path: Path) -> None:
    logger = logging.getLogger("pipelines.test")
    with LogFile(tmp_path / "batch.log"):
        try:
            raise ZeroDivisionError("why")
        except ZeroDivisionError:
            logger.exception("path=%r", "\udcff")
    logger.warning("not for the file")
    text = (tmp_path / "batch.log").read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "ZeroDivisionError: why" in text
    assert "not for the file" not in text
    assert logging.getLogger("pipelines").handlers == []


def test_log_file_that_cannot_be_written_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(FatalProblem, match="--output-dir"), LogFile(tmp_path):
        pass


def test_an_unforeseen_exception_is_logged_and_becomes_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(FatalProblem, match=r"unforeseen ZeroDivisionError: why.*batch\.log"),
        LogFile(tmp_path / "batch.log"),
    ):
        raise ZeroDivisionError("why")
    assert "Traceback" in (tmp_path / "batch.log").read_text(encoding="utf-8")
    assert logging.getLogger("pipelines").handlers == []


def test_a_foreseen_exception_passes_the_log(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), LogFile(tmp_path / "batch.log"):
        raise Interrupted("stopped")
    assert (tmp_path / "batch.log").read_text(encoding="utf-8") == ""
