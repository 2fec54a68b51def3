"""Ends what a private Ray leaves behind when its driver is killed.

Most of Ray dies with its driver, but the agents of a node wait more than a minute for a server
that is gone too. So a small process of its own session notes what the driver starts, and waits at a
pipe, which the system closes however the driver ends; then it kills what is still there.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_SECONDS_TO_DIE_ALONE = 2.0
_LOOK_EVERY_SECONDS = 0.5
_LOOK_LATER_EVERY_SECONDS = 10.0
_STARTING_SECONDS = 60.0
_PARENT, _BIRTH = 1, 19  # fields of /proc/PID/stat after the name


class Undertaker:
    """Context in which the processes that this one starts outlive it by seconds only."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Undertaker:
        """Start to watch."""
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Everything ended as it should: nothing is to be watched any more."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def _processes() -> dict[int, tuple[int, int]]:
    """Parent, and time of birth in clock ticks, of every process; nothing without `/proc`."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = int(fields[_PARENT]), int(fields[_BIRTH])
    return found


def _below(ancestor: int) -> dict[int, int]:
    """Every process that comes from another one, with its time of birth."""
    processes = _processes()
    found: dict[int, int] = {}
    todo = [ancestor]
    while todo:
        parent = todo.pop()
        children = [pid for pid, (its_parent, _) in processes.items() if its_parent == parent]
        found |= {pid: processes[pid][1] for pid in children}
        todo += children
    return found


def _watch(driver: int) -> None:
    started = time.monotonic()
    family: dict[int, int] = {}
    while True:
        is_starting = time.monotonic() - started < _STARTING_SECONDS
        pause = _LOOK_EVERY_SECONDS if is_starting else _LOOK_LATER_EVERY_SECONDS
        if select.select([sys.stdin], [], [], pause)[0]:
            break
        family |= _below(driver)
    time.sleep(_SECONDS_TO_DIE_ALONE)
    family.pop(os.getpid(), None)
    living = _processes()
    for pid, birth in family.items():
        if pid in living and living[pid][1] == birth:  # not another one of the same number
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
