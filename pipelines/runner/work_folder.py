"""Folders of this machine for downloads and drafts, which vanish even if their process is killed.

The owner of a folder holds a lock on a file in it. A folder whose lock nobody holds has lost its
owner; the next run removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "audiovae-"
_LOCK_NAME: Final = ".owner"


class WorkFolder:
    """A new folder for temporary files.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        unnamed = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))  # not yet seen by `remove_orphans`
        self._descriptor = os.open(unnamed / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.path = unnamed.rename(unnamed.with_name(unnamed.name.removeprefix(".")))

    def close(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def remove_orphans() -> None:
    """Remove the folders of processes that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR)
        except OSError:  # not ours, or being removed
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody is at work there
            continue
        finally:
            os.close(descriptor)
