"""Where inputs and outputs lie: below a local directory, or below a URI such as `s3://bucket/x`.

Work happens on local files only. A worker asks for a local copy of an input (of a local one, for
the file itself), writes drafts in a local folder, and has them placed: renamed into place below a
directory, uploaded whole below a URI. So nothing half-written is ever seen, here or there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote

from audiovae.commands import UsageProblem
from audiovae.replacing import replacing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

WORK_DIR_NAME: Final = ".audiovae_work"
"""Folder below an output directory for everything unfinished."""
_LOCAL_SCHEMES: Final = ("file://", "local://")


class Storage(Protocol):
    """A tree of files. Paths are relative, with "/" between their parts; it can be pickled."""

    @property
    def name(self) -> str:
        """What a reader calls it: an absolute path, or a URI."""

    @property
    def directory(self) -> Path | None:
        """The local directory that it is, if it is one."""

    def local_copy(self, path: str) -> AbstractContextManager[Path]:
        """Context that gives a local file with the content of `path`, of the same name.

        Raises:
            AudioReadError: If there is none to be had.
        """

    def drafts(self) -> AbstractContextManager[Path]:
        """Context that gives a new local folder from which files can be placed here."""

    def place(self, draft: Path, path: str) -> None:
        """Move a finished local file to `path`: at once, or not at all."""

    def read_text(self, path: str) -> str | None:
        """Content of a small file, None if there is none; what is no UTF-8 is replaced."""

    def read_start(self, path: str, num_bytes: int) -> bytes:
        """The first bytes of a file, none if there is no such file."""

    def write_text(self, path: str, text: str) -> None:
        """Write a small file: at once, or not at all."""

    def size(self, path: str) -> int | None:
        """Bytes of a file, None if there is none."""

    def exists(self, path: str) -> bool:
        """Whether there is anything at `path`."""

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; none if there is no folder."""

    def remove_tree(self, folder: str) -> None:
        """Remove a folder and all in it, if it is there."""

    def sha256(self, path: str) -> str:
        """Hash of a file's bytes."""


def is_uri(text: str) -> bool:
    """Whether an argument is a URI rather than a path."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("-", "").isalnum()


def open_storage(text: str) -> Storage:
    """The storage that a path or a URI stands for.

    Raises:
        UsageProblem: If it is a URI of a kind that cannot be reached from here.
    """
    if not is_uri(text):
        return LocalStorage(Path(os.path.abspath(text)))
    for scheme in _LOCAL_SCHEMES:
        if text.startswith(scheme):
            return LocalStorage(_path_of(text, scheme))
    from pipelines.runner.remote import RemoteStorage

    if not (uri := text.rstrip("/")).partition("://")[2]:
        raise UsageProblem(f"expected a URI with a place in it, as s3://bucket/x, got '{text}'")
    return RemoteStorage(uri)


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """A directory of this machine, or of a file system that all machines share."""

    root: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.root)

    @property
    def directory(self) -> Path | None:
        """Itself."""
        return self.root

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """The file itself."""
        yield self.root / path

    @contextmanager
    def drafts(self) -> Iterator[Path]:
        """A folder on the same file system, so that placing is renaming."""
        work = self.root / WORK_DIR_NAME / "drafts"
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=work))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def place(self, draft: Path, path: str) -> None:
        """Rename a draft."""
        destination = self.root / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, destination)

    def read_text(self, path: str) -> str | None:
        """Content of a small file, None if there is none."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_start(self, path: str, num_bytes: int) -> bytes:
        """The first bytes of a file, none if there is no such file."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(num_bytes)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return b""

    def write_text(self, path: str, text: str) -> None:
        """Write a small file, safe from a crash of the machine, and rename it into place."""
        destination = self.root / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        with replacing(destination, durable=True) as draft:
            draft.write_text(text, encoding="utf-8")

    def size(self, path: str) -> int | None:
        """Bytes of a file, None if there is none."""
        try:  # not pathlib, which would cost more than all the rest of a rerun
            return os.stat(f"{self.root}/{path}").st_size
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is anything at `path`, be it a link to nowhere."""
        return os.path.lexists(self.root / path)

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted."""
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []

    def remove_tree(self, folder: str) -> None:
        """Remove a folder and all in it, if it is there."""
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def sha256(self, path: str) -> str:
        """Hash of a file's bytes."""
        with (self.root / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def require_shared(*storages: Storage) -> None:
    """Refuse what only this process can see, for work by others.

    Raises:
        UsageProblem: If one of them lies in this process's memory.
    """
    for storage in storages:
        if storage.name.startswith("memory://"):
            raise UsageProblem(
                f"expected a place that every worker sees, got {storage.name}; "
                "use --executor local with memory://"
            )


def _path_of(uri: str, scheme: str) -> Path:
    """The path in a `file:` URI, whose special characters may be written as %20."""
    path = uri.removeprefix(scheme)
    if not path.startswith("/"):
        raise UsageProblem(
            f"expected an absolute path in '{uri}', as in {scheme}/data/sounds; "
            "give the path alone for a relative one"
        )
    literal = Path(os.path.abspath(path))
    return literal if literal.exists() else Path(os.path.abspath(unquote(path)))
