"""What lies below a directory: sounds, and not what a run of ours made of them.

Symbolic links are followed, but every directory is visited once, and by its own name rather
than a link's where it has both, so a circle of links ends. Hidden entries are left out, and so is
everything below a directory that a run writes to: it holds a lock.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from audiovae.audio.formats import claims_to_be_audio

LOCK_NAME: Final = ".audiovae.lock"
"""File by which a directory is known as one that a run of ours writes to."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a directory that is not looked into.

    Attributes:
        path: Below the root, with "/" between its parts.
        refusal: Why a directory is not looked into; "" for a file.
        is_ours: Whether that is because a run of ours writes there.
    """

    path: str
    refusal: str = ""
    is_ours: bool = False


def walk(
    root: Path, *, leave_out: Path | None = None, max_depth: int | None = None
) -> Iterator[Entry]:
    """Every file below `root`, in no order.

    Args:
        root: A directory; it is looked into even if a run writes to it.
        leave_out: A directory that counts as visited.
        max_depth: How many names a path may have.
    """
    visited = {identity for identity in (_identity(leave_out),) if identity is not None}
    names: deque[str] = deque([""])
    links: deque[str] = deque()
    while names or links:
        # Links last: a directory that also has a name of its own is visited under that one.
        below = names.popleft() if names else links.popleft()
        directory = os.path.join(root, below)
        identity = _identity(directory)
        if below and identity in visited:
            continue
        if below and os.path.exists(os.path.join(directory, LOCK_NAME)):
            yield Entry(below, "the outputs of another run", is_ours=True)
            continue
        if identity is not None:
            visited.add(identity)
        try:
            entries = list(os.scandir(directory))
        except OSError as error:
            yield Entry(below or ".", f"cannot list this directory: {error.strerror}")
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("."):
                continue
            if not _is_directory(entry):
                yield Entry(path)
            elif max_depth is None or path.count("/") + 1 < max_depth:
                (links if entry.is_symlink() else names).append(path)


def audio_files_below(directory: Path) -> list[Path]:
    """Files at any depth whose names say that they are audio, sorted; see the module."""
    found = []
    for entry in walk(directory):
        if entry.refusal:
            _LOG.warning("left out %s: %s", directory / entry.path, entry.refusal)
        elif claims_to_be_audio(entry.path):
            found.append(directory / entry.path)
    return sorted(found)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links: not a directory, and `stat` says what it is
        return False


def _identity(path: Path | str | None) -> tuple[int, int] | None:
    try:
        facts = os.stat(path) if path is not None else None
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if facts is not None else None
