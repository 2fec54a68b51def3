"""One run at a time on one output directory.

The lock is the kernel's (`flock`), so it vanishes with its process, whatever killed it; the
file stays, and remembers which input the directory belongs to.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audiovae.audio.listing import LOCK_NAME
from audiovae.commands import UsageProblem
from audiovae.replacing import remove_drafts
from pipelines.runner.stopping import FatalProblem

if TYPE_CHECKING:
    from pipelines.runner.storage import Storage


class OutputLock:
    """Context that owns an output directory, creating it if need be."""

    def __init__(self, output_dir: Path, root: Path | str) -> None:
        self._path = output_dir / LOCK_NAME
        self._root = root
        self._descriptor: int | None = None

    def __enter__(self) -> OutputLock:
        """Take the lock.

        Raises:
            FatalProblem: If another run holds it, or the directory cannot be written to.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            self._take(self._descriptor)
            remove_drafts(self._path.parent)
        except OSError as error:
            raise FatalProblem(
                f"expected a writable output directory, got '{error.strerror}' for "
                f"{error.filename or self._path.parent}; choose another --output-dir"
            ) from error
        return self

    def _take(self, descriptor: int) -> None:
        holder = _read(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
            raise FatalProblem(
                f"expected to be the only run on {self._path.parent}, but {who} is writing there; "
                "wait for it or choose another --output-dir"
            ) from error
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "root": str(self._root)}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode() + b"\n", 0)

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)


def previous_root(output: Storage) -> str:
    """The input of the last run on an output directory, "" if there was none."""
    try:
        facts = json.loads(output.read_text(LOCK_NAME) or "{}")
    except ValueError:
        return ""
    return str(facts.get("root", "")) if isinstance(facts, dict) else ""


def _read(descriptor: int) -> dict[str, object]:
    try:
        facts = json.loads(os.pread(descriptor, 65_536, 0))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def require_ours(
    output: Storage, names: Sequence[str], remedy: str = "choose another directory"
) -> None:
    """Refuse files that no run of ours can have written: it leaves its lock beside them.

    Args:
        output: Where a command is about to write.
        names: Of the files that it would replace there.
        remedy: What the user can do.

    Raises:
        UsageProblem: If some are there, and no lock.
    """
    if output.exists(LOCK_NAME):
        return
    if there := [name for name in names if output.exists(name)]:
        raise UsageProblem(
            "--output-dir: expected a new directory or that of an earlier run, got "
            f"'{output.name}' with {', '.join(there)} of something else; {remedy}"
        )
