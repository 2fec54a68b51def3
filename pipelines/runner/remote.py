"""A tree of files below a URI, through fsspec: `s3://`, `gs://`, `abfs://`, `memory://`, ...

On an object store an upload appears whole or not at all. Elsewhere (`sftp://`, `smb://`) a file
is uploaded under another name and then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from audiovae.commands import UsageProblem, one_line
from audiovae.errors import AudioReadError, AudioWriteError
from pipelines.runner.work_folder import WorkFolder

_OBJECT_STORES: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "memory"}
)
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_BLOCK_BYTES: Final = 1 << 20
_NANOSECONDS: Final = 1_000_000_000

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in a listing.

    Attributes:
        path: Relative to the root of the listing.
        size: Bytes.
        mtime_ns: When it was last written; below the second it stands for the entity tag, since
            object stores know times to the second only.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class RemoteStorage:
    """Everything below a URI. See `storage.Storage` for the contract."""

    uri: str

    def __post_init__(self) -> None:
        """Make sure that the URI can be reached from here.

        Raises:
            UsageProblem: If what is needed for it is not installed.
        """
        _file_system(self.scheme)

    @property
    def scheme(self) -> str:
        """The kind of store: what stands before `://`."""
        return self.uri.partition("://")[0]

    @property
    def name(self) -> str:
        """The URI."""
        return self.uri

    @property
    def directory(self) -> None:
        """None: it is no local directory."""

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """A download, deleted after use."""
        with self.drafts() as folder:
            copy = folder / path.rpartition("/")[2]
            self.fetch(path, copy)
            yield copy

    def fetch(self, path: str, copy: Path) -> None:
        """Download a file.

        Raises:
            AudioReadError: If that fails.
        """
        try:
            self._call(lambda fs: fs.get_file(self._full(path), str(copy)))
        except OSError as error:
            raise self._not_fetched(path, error) from error

    def fetch_ranges(self, path: str, copy: Path, size: int, ranges: list[tuple[int, int]]) -> None:
        """Download byte ranges into a sparse local file of the right size.

        Raises:
            AudioReadError: If that fails.
        """
        try:
            with copy.open("wb") as file:
                file.truncate(size)
                for start, stop in ranges:
                    file.seek(start)
                    file.write(self._range(path, start, stop))
        except OSError as error:
            raise self._not_fetched(path, error) from error

    def _range(self, path: str, start: int, stop: int) -> bytes:
        full = self._full(path)
        data: bytes = self._call(lambda fs: fs.cat_file(full, start=start, end=stop))
        return data

    @contextmanager
    def drafts(self) -> Iterator[Path]:
        """A temporary folder of this machine."""
        folder = WorkFolder()
        try:
            yield folder.path
        finally:
            folder.close()

    def place(self, draft: Path, path: str) -> None:
        """Upload a draft, and delete it here."""
        self._put(path, lambda fs, full: fs.put_file(str(draft), full))
        draft.unlink()

    def read_text(self, path: str) -> str | None:
        """Content of a small file, None if there is none."""
        try:
            data: bytes = self._call(lambda fs: fs.cat_file(self._full(path)))
        except FileNotFoundError:
            return None
        return data.decode("utf-8", errors="replace")

    def read_start(self, path: str, num_bytes: int) -> bytes:
        """The first bytes of a file, none if there is no such file."""
        try:
            return self._range(path, 0, num_bytes)
        except FileNotFoundError:
            return b""

    def write_text(self, path: str, text: str) -> None:
        """Upload a small file."""
        self._put(path, lambda fs, full: fs.pipe_file(full, text.encode()))

    def create_text(self, path: str, text: str) -> None:
        """Upload a small file that must not exist yet.

        Raises:
            FileExistsError: If it exists.
        """
        self._call(lambda fs: fs.pipe_file(self._full(path), text.encode(), mode="create"))

    def size(self, path: str) -> int | None:
        """Bytes of a file, None if there is none."""
        try:
            size: int = self._call(lambda fs: fs.size(self._full(path)))
        except FileNotFoundError:
            return None
        return size

    def exists(self, path: str) -> bool:
        """Whether there is a file at `path`."""
        return self.size(path) is not None

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted."""
        try:
            found: list[str] = self._call(lambda fs: fs.ls(self._full(folder), detail=False))
        except FileNotFoundError:
            return []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def listing(self) -> list[RemoteFile]:
        """All files, in no particular order."""
        files: dict[str, dict[str, Any]] = self._call(
            lambda fs: fs.find(self.uri, detail=True, withdirs=False)
        )
        root = self._call(lambda fs: str(fs._strip_protocol(self.uri))).rstrip("/") + "/"
        return [
            RemoteFile(name.removeprefix(root), int(facts.get("size") or 0), _modified_ns(facts))
            for name, facts in files.items()
            if name.startswith(root) and not name.endswith("/")
        ]

    def is_file(self) -> bool:
        """Whether the URI itself names a file."""
        return bool(self._call(lambda fs: fs.isfile(self.uri)))

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._call(lambda fs: fs.rm_file(self._full(path)))
        except FileNotFoundError:
            return

    def remove_tree(self, folder: str) -> None:
        """Remove a folder and all in it, if it is there."""
        try:
            self._call(lambda fs: fs.rm(self._full(folder), recursive=True))
        except FileNotFoundError:
            return

    def sha256(self, path: str) -> str:
        """Hash of a file's bytes, read a block at a time."""
        digest = hashlib.sha256()
        with self._call(lambda fs: fs.open(self._full(path), "rb")) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def _not_fetched(self, path: str, error: OSError) -> OSError:
        """What to raise when a download failed; a full disk is not the file's fault."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        return AudioReadError(
            f"{self._full(path)}: expected a file to download, got '{one_line(error)}'; "
            "check that it is there and may be read"
        )

    def _full(self, path: str) -> str:
        return f"{self.uri}/{path}" if path else self.uri

    def _put(self, path: str, put: Callable[[Any, str], object]) -> None:
        full = self._full(path)
        try:
            if self.scheme in _OBJECT_STORES:
                self._call(lambda fs: put(fs, full))
                return
            parent = full.rpartition("/")[0]
            temporary = f"{parent}/.{uuid.uuid4().hex}.tmp"
            self._call(lambda fs: fs.makedirs(parent, exist_ok=True))
            self._call(lambda fs: put(fs, temporary))
            self._call(lambda fs: fs.mv(temporary, full))
        except OSError as error:
            raise AudioWriteError(f"cannot upload '{full}': {one_line(error)}") from error

    def _call(self, action: Callable[[Any], _Result]) -> _Result:
        """Do something on the file system; whatever goes wrong there becomes an `OSError`."""
        try:
            return action(_file_system(self.scheme))
        except OSError:
            raise
        except Exception as error:  # each store has its own: credentials, names, networks
            raise OSError(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=8)
def _file_system(scheme: str) -> Any:
    import fsspec  # takes as long as all the rest of a run with nothing to do

    try:
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        remedy = f"pip install -e '.[{extra}]'" if extra else one_line(error)
        raise UsageProblem(
            f"expected the package that reaches {scheme}://, found none; {remedy}"
        ) from None
    except ValueError:
        raise UsageProblem(
            f"expected a URI that fsspec knows, as s3:// or gs://, got {scheme}://; "
            "check the spelling"
        ) from None


def _modified_ns(facts: dict[str, Any]) -> int:
    """When a file was last written, from what the store calls it."""
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    value = next((facts[name] for name in names if facts.get(name) is not None), 0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        value = aware.timestamp()
    tag = facts.get("ETag") or facts.get("etag") or facts.get("md5Hash")
    if not tag:
        return int(value * _NANOSECONDS)
    digest = hashlib.sha256(str(tag).encode()).digest()
    return int(value) * _NANOSECONDS + int.from_bytes(digest[:8], "big") % _NANOSECONDS
