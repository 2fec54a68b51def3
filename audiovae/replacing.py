"""Files that take their names when they are whole, and not before."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".part"
_DRAFT_NAME: Final = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(_SUFFIX)}")


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Context that gives a path to write to, and makes it `path` at the end.

    If the block fails, what it wrote is removed and `path` is as it was.

    Args:
        path: Where the file belongs; its directory exists.
        durable: Whether it must be on the disk before it takes its name, so that a crash of the
            machine leaves it or what was there before, and nothing between.
    """
    draft = draft_of(path)
    try:
        yield draft
        if durable:
            sync_to_disk(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """A hidden path beside `path` that nobody else writes to; short, whatever the name."""
    return path.with_name(f".{uuid.uuid4().hex[:16]}{_SUFFIX}")


def remove_drafts(directory: Path) -> None:
    """Remove drafts that killed processes left in a directory where only the caller writes."""
    for path in directory.glob(f".*{_SUFFIX}"):
        if _DRAFT_NAME.fullmatch(path.name):  # and not somebody's unfinished download
            path.unlink(missing_ok=True)


def sync_to_disk(file: Path) -> None:
    """Make sure that a finished file survives a crash of the machine."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
