"""The books of a run: manifest, log, summary, report, and the lock on the output directory.

Below a directory they are kept in it. Below a URI they are kept in a temporary folder and uploaded
at the end; meanwhile every new line of the manifest goes into a journal there, before the work it
announces begins. So a run that is killed, or loses its machine, is continued from any other.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from pipelines.runner.lock import OutputLock
from pipelines.runner.remote import RemoteStorage
from pipelines.runner.remote_lock import RemoteLock
from pipelines.runner.storage import LocalStorage, Storage
from pipelines.runner.work_folder import WorkFolder, remove_orphans

MANIFEST_NAME: Final = "manifest.jsonl"
REPORT_NAME: Final = "report.html"
_JOURNAL_DIR: Final = ".audiovae_journal"
_FLUSH_EVERY_SECONDS: Final = 5.0


class Books(Protocol):
    """What a ledger asks for."""

    @property
    def folder(self) -> Path:
        """Local folder of the manifest."""

    def size(self, path: str) -> int | None:
        """Bytes of an output, None if it is not there."""

    def add(self, lines: memoryview) -> None:
        """Take note of lines that are being appended to the manifest."""

    def flush(self) -> None:
        """Make sure that these lines survive this machine."""


class Desk(Books, Protocol):
    """The books as a context that holds the lock."""

    def __enter__(self) -> Desk:
        """Take the lock, and open the books."""

    def __exit__(self, *_: object) -> None:
        """Put the books where they belong, and give the lock back."""


def open_desk(output: Storage, source_name: str, names: tuple[str, ...] = ()) -> Desk:
    """The desk of an output directory.

    Args:
        output: The directory, or what a URI stands for.
        source_name: Of the input, for the lock.
        names: Of the books beside the manifest; the last is written last.
    """
    if isinstance(output, RemoteStorage):
        return RemoteDesk(output, source_name, (*names[:-1], MANIFEST_NAME, *names[-1:]))
    assert output.directory is not None
    return LocalDesk(output.directory, source_name)


@contextmanager
def books_to_read(output: Storage) -> Iterator[Books]:
    """Context that gives the books as they are now; without the lock, and nothing is written."""
    if not isinstance(output, RemoteStorage):
        assert output.directory is not None
        yield LocalBooks(output.directory)
        return
    books = RemoteBooks(output, (MANIFEST_NAME,))
    books.open()
    try:
        yield books
    finally:
        books.close()


class LocalBooks:
    """Books in a directory. See `Books`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._storage = LocalStorage(folder)

    def size(self, path: str) -> int | None:
        """Bytes of an output, None if it is not there."""
        return self._storage.size(path)

    def add(self, lines: memoryview) -> None:
        """Nothing: the manifest is where it belongs."""

    def flush(self) -> None:
        """Nothing: what is written survives this process."""


class LocalDesk(LocalBooks):
    """A directory and its lock. See `Desk`."""

    def __init__(self, folder: Path, source_name: str) -> None:
        super().__init__(folder)
        self._lock = OutputLock(folder, source_name)

    def __enter__(self) -> LocalDesk:
        """Take the lock."""
        self._lock.__enter__()
        remove_orphans()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        remove_orphans()
        self._lock.__exit__()


class RemoteBooks:
    """Copies of the books below a URI, and a listing of its files. See `Books`."""

    def __init__(self, storage: RemoteStorage, names: tuple[str, ...]) -> None:
        self._storage, self._names = storage, names
        self._lines = bytearray()

    def open(self) -> None:
        """Fetch the books."""
        remove_orphans()
        storage, names = self._storage, self._names
        self._place = WorkFolder()
        self.folder = self._place.path
        self._sizes = {file.path: file.size for file in storage.listing()}
        journal = [name for name in storage.names(_JOURNAL_DIR) if name.endswith(".jsonl")]
        for name in names:
            if name in self._sizes:
                storage.fetch(name, self.folder / name)
        with (self.folder / MANIFEST_NAME).open("ab") as manifest:
            for name in journal:
                manifest.write((storage.read_text(f"{_JOURNAL_DIR}/{name}") or "").encode())
        self._before = {name: self._state(name) for name in names}
        self._number = int(Path(journal[-1]).stem) + 1 if journal else 0
        self._flushed_at = time.monotonic()

    def size(self, path: str) -> int | None:
        """Bytes of an output as it was when the run began, None if it was not there."""
        return self._sizes.get(path)

    def add(self, lines: memoryview) -> None:
        """Put lines into the journal, every few seconds."""
        self._lines += lines
        if time.monotonic() - self._flushed_at > _FLUSH_EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Upload the lines that are not yet in the journal."""
        self._flushed_at = time.monotonic()
        if self._lines:
            name = f"{_JOURNAL_DIR}/{self._number:08d}.jsonl"
            self._storage.write_text(name, self._lines.decode())
            self._number += 1
            self._lines.clear()

    def publish(self) -> None:
        """Upload the books that have changed; the journal is then in them."""
        for name in self._names:
            if self._state(name) is None and name in self._sizes:
                self._storage.remove(name)
        has_journal = self._number > 0
        for name in self._names:
            is_new = self._state(name) != self._before[name]
            if is_new or (has_journal and name == MANIFEST_NAME):
                self._upload(name)
        if has_journal:
            self._storage.remove_tree(_JOURNAL_DIR)

    def close(self) -> None:
        """Remove the copies."""
        self._place.close()
        remove_orphans()

    def _upload(self, name: str) -> None:
        if (self.folder / name).stat().st_size:
            with self._storage.drafts() as drafts:
                self._storage.place(Path(shutil.copy(self.folder / name, drafts)), name)

    def _state(self, name: str) -> tuple[int, int] | None:
        try:
            facts = os.stat(self.folder / name)
        except OSError:
            return None
        return facts.st_size, facts.st_mtime_ns


class RemoteDesk(RemoteBooks):
    """What is below a URI, and its lock. See `Desk`."""

    def __init__(self, storage: RemoteStorage, source_name: str, names: tuple[str, ...]) -> None:
        super().__init__(storage, names)
        self._lock = RemoteLock(storage, source_name)

    def __enter__(self) -> RemoteDesk:
        """Take the lock, and fetch the books."""
        self._lock.__enter__()
        try:
            self.open()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Upload the books, and give the lock back."""
        try:
            self._lock.require()
            self.publish()
        finally:
            self.close()
            self._lock.__exit__()

    def flush(self) -> None:
        """Upload the journal, if the directory is still ours."""
        self._lock.require()
        super().flush()
