"""New files to clips: what is audio and how long, what is refused, what is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from audiovae.audio import AudioInfo
from audiovae.config import SpectrogramConfig
from audiovae.training.shard_index import ShardRow
from pipelines.preprocessing.shard_plan import Clip
from pipelines.runner.inputs import Found
from pipelines.runner.probing import in_order, look_into, threads_for
from pipelines.runner.storage import Storage
from pipelines.runner.units import FileFailed, FileSkipped, failure


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A file whose bytes are in the shards already, under another name."""

    path: str
    original: str


LeftOut = FileFailed | FileSkipped | Duplicate


def take_in(
    found: Sequence[Found], source: Storage, config: SpectrogramConfig
) -> tuple[list[Clip], list[LeftOut]]:
    """Look at new files, many at once; none is decoded."""
    if not found:
        return [], []
    from audiovae.training.shard_writer import frames_of  # with torch

    def look(entry: Found) -> Clip | FileFailed | FileSkipped:
        facts = look_into(entry, source, with_compressed=False)
        if isinstance(facts, AudioInfo):
            return Clip(entry, facts, frames_of(facts, config))
        return facts

    clips: list[Clip] = []
    left_out: list[LeftOut] = []
    for result in in_order(look, found, threads_for(source)):
        if isinstance(result, Clip):
            clips.append(result)
        else:
            left_out.append(result)
    return clips, left_out


def set_duplicates_aside(
    clips: Sequence[Clip], known: Iterable[ShardRow], source: Storage
) -> tuple[list[Clip], list[LeftOut]]:
    """Keep the first of all files with the same bytes; one in the shards comes before all.

    Only files of the same size can be the same, so only those are hashed.
    """
    sizes = Counter(clip.entry.size for clip in clips)
    rows = [row for row in known if row.size in sizes and row.source_frame == 0]
    sizes.update(row.size for row in rows)
    rivals = [clip for clip in clips if sizes[clip.entry.size] > 1]
    threads = threads_for(source)
    first: dict[str, str] = {}
    hashes = in_order(lambda row: row.sha256 or _hash(row.path, source), rows, threads)
    for row, digest in zip(rows, hashes, strict=True):
        if isinstance(digest, str):  # else its source is gone: nothing to compare with
            first.setdefault(digest, row.path)
    hashes = in_order(lambda clip: _hash(clip.entry.path, source), rivals, threads)
    hash_of = dict(zip((clip.entry.path for clip in rivals), hashes, strict=True))
    kept: list[Clip] = []
    left_out: list[LeftOut] = []
    for clip in clips:
        path = clip.entry.path
        digest = hash_of.get(path, "")
        if isinstance(digest, FileFailed):
            left_out.append(digest)
        elif digest and (original := first.setdefault(digest, path)) != path:
            left_out.append(Duplicate(path, original))
        else:
            kept.append(replace(clip, sha256=digest))
    return kept, left_out


def _hash(path: str, source: Storage) -> str | FileFailed:
    try:
        return source.sha256(path)
    except OSError as error:
        return failure(path, error)
