"""INPUT to a sorted list of files: a directory, a file or a pattern, walked without opening any.

Of a directory, links and what runs of ours wrote, see `audiovae.audio.listing`.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from audiovae.audio import claims_to_be_audio
from audiovae.audio.listing import LOCK_NAME, walk
from audiovae.commands import UsageProblem
from pipelines.runner.remote import RemoteStorage
from pipelines.runner.storage import LocalStorage, Storage, open_storage

_MAGIC = frozenset("*?[")
_OUTPUT_SUFFIX = "_audiovae"


@dataclass(frozen=True, slots=True)
class Found:
    """One input: a path below the root with "/" between its parts, and what `stat` says.

    `problem` says why it cannot be an audio file although it was found; such an input becomes
    an error row, or a skipped one if `harmless`. What the user `named` as the one INPUT is an
    error where another file would be skipped.
    """

    path: str
    size: int
    mtime_ns: int
    problem: str = ""
    harmless: bool = False
    named: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What INPUT stands for: a tree of files, and which files of it."""

    kind: Literal["directory", "file", "pattern"]
    storage: Storage
    name: str
    pattern: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What a reader calls it."""
        return "/".join((self.name or self.storage.name, *self.pattern))

    @property
    def default_output(self) -> str:
        """INPUT's name + `_audiovae`, beside INPUT (beside its fixed directory, for a pattern).

        Raises:
            UsageProblem: If INPUT has no name, as the root of the file system.
        """
        if not self.name:
            raise UsageProblem(
                f"expected --output-dir, because '{self.storage.name}' has no name to derive one "
                "from"
            )
        above, _, _ = self.storage.name.rpartition("/")
        beside = self.storage.name if self.kind == "file" else above
        return f"{beside}/{self.name}{_OUTPUT_SUFFIX}"


def locate(argument: str) -> Source:
    """Say what the INPUT argument stands for. Relative and absolute paths mean the same.

    Raises:
        UsageProblem: If nothing is there.
    """
    path = open_storage(argument).directory
    if path is None:
        return locate_remote(argument)
    if path.is_dir():
        return Source("directory", LocalStorage(path), path.name)
    if os.path.lexists(path):
        return Source("file", LocalStorage(path.parent), path.name)
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
    return Source("pattern", LocalStorage(root), root.name, parts[magic:])


def locate_remote(uri: str) -> Source:
    """Say what a URI stands for: a file, a pattern, or all that lies below it."""
    scheme, _, rest = uri.partition("://")
    parts = rest.rstrip("/").split("/")
    magic = next((i for i, part in enumerate(parts) if _MAGIC & set(part)), None)
    root = open_storage(f"{scheme}://{'/'.join(parts[:magic])}")
    name = parts[:magic][-1]
    if magic is not None:
        return Source("pattern", root, name, tuple(parts[magic:]))
    if isinstance(root, RemoteStorage) and root.is_file():
        return Source("file", open_storage(f"{scheme}://{'/'.join(parts[:-1])}"), name)
    return Source("directory", root, name)


def survey(source: Source, output: Storage) -> list[Found]:
    """Every input of `source`, sorted by path.

    Raises:
        UsageProblem: If there is none, or all of them lie in `output`.
    """
    if _contains(output, source.storage):
        raise UsageProblem(
            f"expected an output directory that does not contain the input, got '{output.name}'; "
            "choose another --output-dir"
        )
    root = source.storage.directory
    if root is not None and source.kind == "file":
        return [replace(_look_at(os.path.join(root, source.name), source.name), named=True)]
    found = sorted(_select(source, output), key=lambda entry: entry.path)
    if not found:
        matching = f" that matches {'/'.join(source.pattern)}" if source.pattern else ""
        raise UsageProblem(
            f"expected audio files, found none: '{source.storage.name}' holds no file{matching} "
            "(hidden files do not count)"
        )
    return found


def _select(source: Source, output: Storage) -> Iterator[Found]:
    root = source.storage.directory
    if isinstance(source.storage, RemoteStorage):
        files = _list(source.storage, output)
        if source.kind == "file":
            return (replace(file, named=True) for file in files if file.path == source.name)
    else:
        assert root is not None
        depth = len(source.pattern) if source.pattern and "**" not in source.pattern else None
        files = _walk(root, output.directory, depth)
    if source.kind == "directory":
        return files
    return (entry for entry in files if _matches(tuple(entry.path.split("/")), source.pattern))


def _list(storage: RemoteStorage, output: Storage) -> Iterator[Found]:
    """Every file below a URI: not hidden ones, and nothing that a run of ours wrote."""
    files = storage.listing()
    ours = [f.path.removesuffix(LOCK_NAME) for f in files if f.path.endswith(f"/{LOCK_NAME}")]
    below = f"{output.name}/".removeprefix(f"{storage.name}/")
    for folder in ours:
        if folder != below:
            yield Found(folder.rstrip("/"), 0, 0, "the outputs of another run", harmless=True)
    for file in files:
        hidden = any(part.startswith(".") for part in file.path.split("/"))
        if not hidden and not file.path.startswith((*ours, below)):
            yield Found(file.path, file.size, file.mtime_ns)


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


def _walk(root: Path, output: Path | None, max_depth: int | None) -> Iterator[Found]:
    for entry in walk(root, leave_out=output, max_depth=max_depth):
        if entry.refusal:
            yield Found(entry.path, 0, 0, entry.refusal, harmless=entry.is_ours)
        else:
            yield _look_at(os.path.join(root, entry.path), entry.path)


def _look_at(file: str, path: str) -> Found:
    try:
        facts = os.stat(file)
    except OSError as error:
        problem = f"cannot look at this file: {error.strerror}"
        return Found(path, 0, 0, problem, harmless=not claims_to_be_audio(file))
    if not stat.S_ISREG(facts.st_mode):
        return Found(path, 0, facts.st_mtime_ns, "not a regular file", harmless=True)
    return Found(path, facts.st_size, facts.st_mtime_ns)


def _identity(path: Path | str | None) -> tuple[int, int] | None:
    try:
        facts = os.stat(path) if path is not None else None
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if facts is not None else None


def _contains(output: Storage, source: Storage) -> bool:
    """Whether the input is `output` or lies below it."""
    if source.directory is None or output.directory is None:
        return f"{source.name}/".startswith(f"{output.name}/")
    identity = _identity(output.directory)
    above = (source.directory, *source.directory.resolve().parents)
    return identity is not None and identity in {_identity(place) for place in above}
