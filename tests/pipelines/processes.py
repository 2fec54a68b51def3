"""Commands as processes, each with a session of its own, by which all it starts is found again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 240.0
ACTOR = "ray::UnitActor"


class Command:
    """A running `python -m MODULE ARGUMENTS...`."""

    def __init__(
        self, module: str, *arguments: str | Path, environment: dict[str, str] | None = None
    ) -> None:
        self.words = (module, *(str(argument) for argument in arguments))
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.words],
            cwd=ROOT,
            env=(environment or dict(os.environ)) | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, timeout_seconds: float = PATIENCE_SECONDS) -> tuple[int, str, str]:
        """Wait for the end: status, standard output, standard error."""
        try:
            out, err = self.process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            kill(self.family())
            raise
        return self.process.returncode, out, err

    def family(self) -> dict[int, str]:
        """Every living process that this command started, and itself: pid to command line."""
        return session(self.process.pid)

    def actors(self, name: str = ACTOR) -> list[int]:
        """Pids of its actors; `ray::UnitActor.perform` finds the busy ones."""
        return [pid for pid, line in self.family().items() if line.startswith(name)]

    def has_ended(self) -> bool:
        """Whether the command itself has, with whatever status."""
        return self.process.poll() is not None

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something to happen while it runs."""
        if not holds_within(PATIENCE_SECONDS, lambda: condition() or self.has_ended()):
            kill(self.family())
            raise AssertionError(f"waited in vain for {what}")
        if self.has_ended() and not condition():
            raise AssertionError(f"ended before {what}: {self.end()}")

    def leaves_nothing_within(self, seconds: float) -> bool:
        """Whether all its processes are gone in time."""
        return holds_within(seconds, lambda: not self.family())


def session(leader: int) -> dict[int, str]:
    """Command lines of the living processes of a session, zombies aside."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
            if line and os.getsid(int(folder.name)) == leader:
                found[int(folder.name)] = line.decode(errors="replace").strip()
    return found


def kill(pids: Iterable[int]) -> None:
    for pid in list(pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def holds_within(seconds: float, condition: Callable[[], object]) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
