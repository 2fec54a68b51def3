"""What an input is, before any work: audio of some length, something else, or refused.

Nothing is decoded and no model is loaded; many files are looked at at once, because on a network
each look is mostly waiting. Of a large remote file only both ends are fetched, if its format
says there all that is asked.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from audiovae.audio import (
    AudioInfo,
    claims_to_be_audio,
    is_audio_by_content,
    is_compressed,
    probe_audio,
    states_its_length,
)
from audiovae.errors import AudioVAEError
from pipelines.runner.inputs import Found
from pipelines.runner.remote import RemoteStorage
from pipelines.runner.storage import Storage
from pipelines.runner.units import FileFailed, FileSkipped, failure

LOCAL_THREADS: Final = 8
REMOTE_THREADS: Final = 32
_ITEMS_PER_CALL: Final = 16  # amortises the hand-over to a thread
_CALLS_AHEAD: Final = 64  # bounds what is in memory
_WHOLE_BELOW_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 1 << 19
_TAIL_BYTES: Final = 1 << 18

Facts = AudioInfo | FileFailed | FileSkipped
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_logger = logging.getLogger(__name__)


def threads_for(storage: Storage) -> int:
    """How many files to look at at once."""
    return REMOTE_THREADS if storage.directory is None else LOCAL_THREADS


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """`map` by many threads, lazily and with bounded memory."""

    def apply(some: list[_Item]) -> list[_Result]:
        return [function(item) for item in some]

    source = iter(items)
    calls: deque[Future[list[_Result]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="probe")
    try:
        while True:
            while len(calls) < _CALLS_AHEAD and (some := list(islice(source, _ITEMS_PER_CALL))):
                calls.append(pool.submit(apply, some))
            if not calls:
                return
            yield from calls.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def look_into(entry: Found, storage: Storage, with_compressed: bool) -> Facts:
    """Say what a file is.

    Args:
        entry: The file.
        storage: Where it lies.
        with_compressed: Whether a compressed file counts as the audio in it; else it is skipped.
    """
    facts = _look(entry, storage, with_compressed)
    if entry.named and isinstance(facts, FileSkipped):
        reason = f"expected audio, got a file that is {facts.reason}"
        return FileFailed(entry.path, "AudioReadError", reason, retry=True)
    return facts


def _look(entry: Found, storage: Storage, with_compressed: bool) -> Facts:
    try:
        if entry.harmless:
            return FileSkipped(entry.path, entry.problem)
        if entry.problem:
            return FileFailed(entry.path, "AudioReadError", entry.problem, retry=True)
        if isinstance(storage, RemoteStorage):
            return _look_into_remote(entry, storage, with_compressed)
        with storage.local_copy(entry.path) as file:
            return _look_into_file(entry, file, with_compressed)
    except Exception as error:
        if not isinstance(error, AudioVAEError | OSError):
            _logger.exception("probe=failed path=%r", entry.path)
        return failure(entry.path, error)


def _look_into_file(entry: Found, file: Path, with_compressed: bool) -> AudioInfo | FileSkipped:
    if is_compressed(file):
        if not with_compressed:
            return FileSkipped(entry.path, "compressed already")
        from audiovae.sources import probe_source  # with torch, which audio does not need yet

        return probe_source(file)
    if not claims_to_be_audio(file) and not is_audio_by_content(file):
        if not os.access(file, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return FileSkipped(entry.path, "not audio")
    return probe_audio(file)


def _look_into_remote(
    entry: Found, storage: RemoteStorage, with_compressed: bool
) -> AudioInfo | FileSkipped:
    with storage.drafts() as folder:
        file = folder / entry.path.rpartition("/")[2]
        if entry.size > _WHOLE_BELOW_BYTES:
            ends = [(0, _HEAD_BYTES), (entry.size - _TAIL_BYTES, entry.size)]
            storage.fetch_ranges(entry.path, file, entry.size, ends)
            try:
                if facts := _by_both_ends(entry, file):
                    return facts
            except AudioVAEError:
                _logger.info("probe=again path=%r", entry.path)
        storage.fetch(entry.path, file)
        return _look_into_file(entry, file, with_compressed)


def _by_both_ends(entry: Found, file: Path) -> AudioInfo | FileSkipped | None:
    """What both ends of a file tell, None if that is not enough."""
    if states_its_length(file):
        info = probe_audio(file)
        return info if info.reader == "soundfile" else None
    is_other = not claims_to_be_audio(file) and not is_audio_by_content(file)
    return FileSkipped(entry.path, "not audio") if is_other and not is_compressed(file) else None
