"""Found files to tasks: what is audio, how long it is, and what is refused before any work.

Nothing is decoded here and no model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from audiovae.audio import AudioInfo
from audiovae.commands import one_line
from pipelines.runner.inputs import Found
from pipelines.runner.probing import in_order, look_into, threads_for
from pipelines.runner.recipe import Recipe
from pipelines.runner.storage import Storage
from pipelines.runner.units import FileFailed, FileSkipped, Span, Task

Verdict = Task | FileFailed | FileSkipped
SpanPlanner = Callable[[AudioInfo], tuple[Span, ...]]
_MAX_NAME_BYTES: Final = 255  # on about every file system


@dataclass(frozen=True, slots=True)
class OutputGuard:
    """Keeps existing files safe: says why the outputs of an input may not be written.

    An output that exists may be replaced only if the manifest knows it as ours or the user
    said `--overwrite`.
    """

    exists: Callable[[str], bool]
    recipe: Recipe
    overwrite: bool
    known_outputs: Callable[[str], tuple[str, ...]]

    def refusal(self, path: str) -> FileFailed | None:
        """Why the outputs of `path` may or can not be written, or None."""
        for _, output in self.recipe.outputs_for(path):
            if (size := len(os.fsencode(output.rpartition("/")[2]))) > _MAX_NAME_BYTES:
                reason = (
                    f"expected output names of up to {_MAX_NAME_BYTES} bytes, this one would have "
                    f"{size}; shorten the input's"
                )
                return FileFailed(path, "NameTooLong", reason, retry=True)
        if self.overwrite:
            return None
        known = self.known_outputs(path)
        for _, output in self.recipe.outputs_for(path):
            if output not in known and self.exists(output):
                reason = (
                    f"output '{output}' exists and is not in the manifest; "
                    "move it away or pass --overwrite"
                )
                return FileFailed(path, "OutputExists", one_line(reason), retry=True)
        return None


def examine(
    found: Iterable[Found], source: Storage, guard: OutputGuard, plan_spans: SpanPlanner | None
) -> Iterator[Verdict]:
    """Judge every file, in order. Without `plan_spans`, tasks carry no spans (a dry run)."""

    def judge(entry: Found) -> Verdict:
        facts = look_into(entry, source, with_compressed=bool(guard.recipe.outputs_for(entry.path)))
        return _task(entry, facts, guard, plan_spans) if isinstance(facts, AudioInfo) else facts

    return in_order(judge, found, threads_for(source))


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
