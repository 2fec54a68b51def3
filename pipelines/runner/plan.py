"""Found files to tasks: what is audio, how long it is, and what is refused before any work.

Nothing is decoded here and no model is loaded; files are probed by many threads at once,
because on a network file system each probe is mostly waiting.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from audiovae.audio import (
    AudioInfo,
    claims_to_be_audio,
    is_audio_by_content,
    is_compressed,
    probe_audio,
)
from audiovae.commands import one_line
from audiovae.errors import AudioVAEError
from pipelines.runner.inputs import Found
from pipelines.runner.recipe import Recipe
from pipelines.runner.units import FileFailed, FileSkipped, Span, Task, failure

PROBE_THREADS: Final = 8
_PROBES_PER_CALL: Final = 16  # amortises the hand-over to a thread
_CALLS_AHEAD: Final = 64  # bounds what is in memory

_logger = logging.getLogger(__name__)

Verdict = Task | FileFailed | FileSkipped
SpanPlanner = Callable[[AudioInfo], tuple[Span, ...]]


@dataclass(frozen=True, slots=True)
class OutputGuard:
    """Keeps existing files safe: says why the outputs of an input may not be written.

    An output that exists may be replaced only if the manifest knows it as ours or the user
    said `--overwrite`.
    """

    output_dir: Path
    recipe: Recipe
    overwrite: bool
    known_outputs: Callable[[str], tuple[str, ...]]

    def refusal(self, path: str) -> FileFailed | None:
        """Why the outputs of `path` may not be written, or None."""
        if self.overwrite:
            return None
        known = self.known_outputs(path)
        for _, output in self.recipe.outputs_for(path):
            if output not in known and os.path.lexists(self.output_dir / output):
                reason = (
                    f"output '{output}' exists and is not in the manifest; "
                    "move it away or pass --overwrite"
                )
                return FileFailed(path, "OutputExists", one_line(reason), retry=True)
        return None


def examine(
    found: Iterable[Found], root: Path, guard: OutputGuard, plan_spans: SpanPlanner | None
) -> Iterator[Verdict]:
    """Judge every file, in order. Without `plan_spans`, tasks carry no spans (a dry run)."""

    def judge(entries: list[Found]) -> list[Verdict]:
        return [_judge(entry, root, guard, plan_spans) for entry in entries]

    source = iter(found)
    calls: deque[Future[list[Verdict]]] = deque()
    pool = ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
    try:
        while True:
            while len(calls) < _CALLS_AHEAD and (entries := list(islice(source, _PROBES_PER_CALL))):
                calls.append(pool.submit(judge, entries))
            if not calls:
                return
            yield from calls.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _judge(entry: Found, root: Path, guard: OutputGuard, plan_spans: SpanPlanner | None) -> Verdict:
    file = root / entry.path
    try:
        if entry.harmless:
            return FileSkipped(entry.path, entry.problem)
        if entry.problem:
            return FileFailed(entry.path, "AudioReadError", entry.problem, retry=True)
        if is_compressed(file):
            if not guard.recipe.outputs_for(entry.path):
                return FileSkipped(entry.path, "compressed already")
            info = _probe_compressed(file)
            return _task(entry, info, guard, plan_spans)
        if not claims_to_be_audio(file) and not is_audio_by_content(file):
            if not os.access(file, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return FileSkipped(entry.path, "not audio")
        info = probe_audio(file)
    except Exception as error:
        if not isinstance(error, AudioVAEError | OSError):
            _logger.exception("probe=failed path=%r", entry.path)
        return failure(entry.path, error)
    return _task(entry, info, guard, plan_spans)


def _probe_compressed(file: Path) -> AudioInfo:
    from audiovae.sources import probe_source  # with torch, which plain audio does not need yet

    return probe_source(file)


def _task(
    entry: Found, info: AudioInfo, guard: OutputGuard, plan_spans: SpanPlanner | None
) -> Task | FileFailed:
    """The work that a file is, unless its outputs may not be written."""
    spans = plan_spans(info) if plan_spans is not None else ()
    task = Task(
        entry.path,
        info.duration_seconds,
        info.num_channels,
        spans if len(spans) > 1 else (),
    )
    return guard.refusal(entry.path) or task
