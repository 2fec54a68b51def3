"""INPUT to a sorted list of files: a directory, a file or a pattern, walked without opening any.

Symbolic links are followed, but every directory is visited once, and by its own name rather
than a link's where it has both, so a circle of links ends. Hidden entries and everything a run
of ours wrote (a directory with our lock file in it) are left out.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audiovae.audio import claims_to_be_audio
from audiovae.commands import UsageProblem
from pipelines.runner.lock import LOCK_NAME

_MAGIC = frozenset("*?[")
_OUTPUT_SUFFIX = "_audiovae"


@dataclass(frozen=True, slots=True)
class Found:
    """One input: a path below the root with "/" between its parts, and what `stat` says.

    `problem` says why it cannot be an audio file although it was found; such an input becomes
    an error row, or a skipped one if `harmless`.
    """

    path: str
    size: int
    mtime_ns: int
    problem: str = ""
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What INPUT stands for: a root directory, and which files below it."""

    kind: Literal["directory", "file", "pattern"]
    root: Path
    name: str
    pattern: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What a reader calls it."""
        return "/".join((self.name or str(self.root), *self.pattern))

    @property
    def default_output(self) -> Path:
        """INPUT's name + `_audiovae`, beside INPUT (beside its fixed directory, for a pattern).

        Raises:
            UsageProblem: If INPUT has no name, as the root of the file system.
        """
        if not self.name:
            raise UsageProblem(
                f"expected --output-dir, because '{self.root}' has no name to derive one from"
            )
        beside = self.root if self.kind == "file" else self.root.parent
        return beside / (self.name + _OUTPUT_SUFFIX)


def locate(argument: str) -> Source:
    """Say what the INPUT argument stands for. Relative and absolute paths mean the same.

    Raises:
        UsageProblem: If nothing is there.
    """
    path = Path(os.path.abspath(os.path.expanduser(argument)))
    if path.is_dir():
        return Source("directory", path, path.name)
    if os.path.lexists(path):
        return Source("file", path.parent, path.name)
    parts = path.parts
    magic = next((i for i, part in enumerate(parts) if _MAGIC & set(part)), None)
    if magic is None:
        raise UsageProblem(
            f"expected a directory, a file or a pattern, got '{argument}', which does not exist; "
            "check the spelling"
        )
    root = Path(*parts[:magic])
    if not root.is_dir():
        raise UsageProblem(
            f"expected a pattern below an existing directory, got '{argument}'; "
            f"'{root}' is not a directory"
        )
    return Source("pattern", root, root.name, parts[magic:])


def survey(source: Source, output_dir: Path) -> list[Found]:
    """Every input of `source`, sorted by path.

    Raises:
        UsageProblem: If there is none, or all of them lie in `output_dir`.
    """
    if _contains(output_dir, source.root):
        raise UsageProblem(
            f"expected an output directory that does not contain the input, got '{output_dir}'; "
            "choose another --output-dir"
        )
    if source.kind == "file":
        return [_look_at(os.path.join(source.root, source.name), source.name)]
    found = sorted(_select(source, _identity(output_dir)), key=lambda entry: entry.path)
    if not found:
        what = "/".join(source.pattern) if source.pattern else "directory"
        raise UsageProblem(
            f"expected audio files, found none: '{source.root}' holds no file for this "
            f"{'pattern: ' + what if source.pattern else what} (hidden files do not count)"
        )
    return found


def _select(source: Source, output: tuple[int, int] | None) -> Iterator[Found]:
    if source.kind == "directory":
        return _walk(source.root, output, max_depth=None)
    depth = None if "**" in source.pattern else len(source.pattern)
    return (
        entry
        for entry in _walk(source.root, output, depth)
        if _matches(tuple(entry.path.split("/")), source.pattern)
    )


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path matches a pattern, part by part; `**` stands for any number of directories.

    >>> _matches(("a", "b", "c.wav"), ("**", "*.wav")), _matches(("a", "c.wav"), ("*.wav",))
    (True, False)
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and _matches(parts[1:], pattern[1:])
    )


def _walk(root: Path, output: tuple[int, int] | None, max_depth: int | None) -> Iterator[Found]:
    visited = {identity for identity in (output,) if identity is not None}
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
            yield Found(below, 0, 0, "the outputs of another run", harmless=True)
            continue
        if identity is not None:
            visited.add(identity)
        try:
            entries = list(os.scandir(directory))
        except OSError as error:
            yield Found(below or ".", 0, 0, f"cannot list this directory: {error.strerror}")
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith("."):
                continue
            if not _is_directory(entry):
                yield _look_at(entry.path, path)
            elif max_depth is None or path.count("/") + 1 < max_depth:
                (links if entry.is_symlink() else names).append(path)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links: not a directory, and `_look_at` says what it is
        return False


def _look_at(file: str, path: str) -> Found:
    try:
        facts = os.stat(file)
    except OSError as error:
        problem = f"cannot look at this file: {error.strerror}"
        return Found(path, 0, 0, problem, harmless=not claims_to_be_audio(file))
    if not stat.S_ISREG(facts.st_mode):
        return Found(path, 0, facts.st_mtime_ns, "not a regular file", harmless=True)
    return Found(path, facts.st_size, facts.st_mtime_ns)


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _contains(output_dir: Path, root: Path) -> bool:
    """Whether `root` is `output_dir` or lies below it."""
    output = _identity(output_dir)
    above = (root, *root.resolve().parents)
    return output is not None and output in {_identity(place) for place in above}
