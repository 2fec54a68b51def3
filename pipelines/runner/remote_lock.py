"""One run at a time on one URI, where no kernel keeps a lock.

The lock is an object with the name of its holder, who renews it every few seconds. One that has
not been renewed for two minutes belongs to nobody: its run was killed. Two runs that take it in
the same second find out when they read it again; one that is cut off from the store for longer
than that finds out before it announces more work. The clocks of the machines must agree within a
minute.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from typing import Any, Final

from audiovae.audio.listing import LOCK_NAME
from pipelines.runner.remote import RemoteStorage
from pipelines.runner.stopping import FatalProblem

RENEW_EVERY_SECONDS: Final = 15.0
ABANDONED_AFTER_SECONDS: Final = 120.0
_SETTLE_SECONDS: Final = 1.0  # in which a rival's overwrite becomes visible

_logger = logging.getLogger(__name__)


class RemoteLock:
    """Context that owns what lies below a URI."""

    def __init__(self, storage: RemoteStorage, root: str) -> None:
        self._storage, self._root = storage, root
        self._id = secrets.token_hex(8)
        self._taken_by = ""
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lock", daemon=True)

    def __enter__(self) -> RemoteLock:
        """Take the lock.

        Raises:
            FatalProblem: If another run holds it, or nothing can be written there.
        """
        try:
            self._take()
        except FatalProblem:
            raise
        except OSError as error:
            raise FatalProblem(
                f"expected to write below {self._storage.name}, got '{error}'; check its name and "
                "your credentials"
            ) from error
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back; the object stays, and remembers the input."""
        self._ended.set()
        self._keeper.join()  # or a renewal on its way would arrive last
        if not self._taken_by:
            self._storage.write_text(LOCK_NAME, self._text(held=False))

    def require(self) -> None:
        """Make sure that the lock is still ours.

        Raises:
            FatalProblem: If another run has taken it.
        """
        if self._taken_by:
            raise FatalProblem(
                f"expected to be the only run on {self._storage.name}, but {self._taken_by} has "
                "taken over, because this one could not renew its lock; let that one finish"
            )

    def _take(self) -> None:
        try:
            self._storage.create_text(LOCK_NAME, self._text())
        except FileExistsError:
            holder = self._read()
            if _is_held(holder):
                raise self._refusal(holder) from None
            self._storage.write_text(LOCK_NAME, self._text())
            time.sleep(_SETTLE_SECONDS)
        holder = self._read()
        if holder.get("id") != self._id:
            raise self._refusal(holder)

    def _keep(self) -> None:
        """Renew the lock until it is given back or another run has it."""
        while not self._ended.wait(RENEW_EVERY_SECONDS):
            try:
                holder = self._read()
                if holder.get("id") != self._id:
                    self._taken_by = _name(holder)
                    return
                if not self._ended.is_set():
                    self._storage.write_text(LOCK_NAME, self._text())
            except OSError:
                _logger.warning("lock=not-renewed", exc_info=True)

    def _refusal(self, holder: dict[str, Any]) -> FatalProblem:
        wait = max(0.0, ABANDONED_AFTER_SECONDS - _age_seconds(holder))
        return FatalProblem(
            f"expected to be the only run on {self._storage.name}, but {_name(holder)} is writing "
            f"there; wait for it (if it was killed, {wait:.0f} s) or choose another --output-dir"
        )

    def _read(self) -> dict[str, Any]:
        try:
            facts = json.loads(self._storage.read_text(LOCK_NAME) or "{}")
        except ValueError:
            return {}
        return facts if isinstance(facts, dict) else {}

    def _text(self, *, held: bool = True) -> str:
        facts = {
            "id": self._id,
            "pid": os.getpid(),
            "host": _this_host(),
            "root": self._root,
            "renewed": time.time() if held else 0.0,
        }
        return json.dumps(facts) + "\n"


def _is_held(holder: dict[str, Any]) -> bool:
    return _age_seconds(holder) < ABANDONED_AFTER_SECONDS and not _is_dead(holder)


def _age_seconds(holder: dict[str, Any]) -> float:
    return time.time() - float(holder.get("renewed", 0.0))


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    if holder.get("host") != _this_host():
        return False
    try:
        os.kill(int(holder.get("pid", 0)), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _this_host() -> str:
    """Name of this machine, and of the container: process numbers mean nothing elsewhere."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _name(holder: dict[str, Any]) -> str:
    host, _, _ = str(holder.get("host", "?")).partition(" ")
    return f"process {holder.get('pid', '?')} on {host}"
