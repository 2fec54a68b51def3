"""Which clip goes into which shard.

The plan depends on the files alone, not on who works or how many, and it is written down before
any work begins: so a run that was killed is finished as if nothing had been.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

from audiovae.audio import AudioInfo
from audiovae.errors import ConfigError
from audiovae.training.shard_index import ClipPart
from pipelines.runner.inputs import Found
from pipelines.runner.units import Pack, Task

MAX_SHARD_FRAMES: Final = 1 << 18
"""A longer clip is cut: 51 minutes, 64 MiB at 128 mels, and 256 MiB of waveforms."""
_MIN_SHARD_FRAMES: Final = 1 << 14
_SHARDS_WANTED: Final = 16  # of a small corpus, so that several workers have something to do
_MAX_PARTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that is to go into shards.

    Attributes:
        entry: The file.
        info: What it holds.
        num_frames: Its length in mel frames.
        sha256: Of its bytes, if that was computed.
    """

    entry: Found
    info: AudioInfo
    num_frames: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask(Task):
    """A file, or a part of a long one, as work.

    Attributes:
        part: What is wanted of it.
        shard_parts: Parts of the whole shard: a pack that has fewer is a trial of some of them.
    """

    part: ClipPart
    shard_parts: int = 0


def shard_name(number: int) -> str:
    """Name of a shard's file."""
    return f"{number:05d}.npy"


def plan_shards(clips: Iterable[Clip], first_number: int) -> list[Pack]:
    """Fill shards with clips, in order.

    Args:
        clips: Sorted by path.
        first_number: Of the first new shard.
    """
    clips = list(clips)
    total = sum(clip.num_frames for clip in clips)
    enough = min(max(total // _SHARDS_WANTED, _MIN_SHARD_FRAMES), MAX_SHARD_FRAMES)
    shards: list[list[ShardTask]] = [[]]
    filled = 0
    for task in (task for clip in clips for task in _tasks(clip)):
        is_long = task.part.num_frames >= MAX_SHARD_FRAMES
        if filled >= enough or len(shards[-1]) == _MAX_PARTS or (is_long and filled):
            shards.append([])
            filled = 0
        shards[-1].append(task)
        filled += task.part.num_frames
    return [pack_of(first_number + i, tasks) for i, tasks in enumerate(shards) if tasks]


def pack_of(number: int, tasks: Iterable[ShardTask]) -> Pack:
    """The unit of work that a shard is."""
    tasks = tuple(tasks)
    return Pack(number, tuple(replace(task, shard_parts=len(tasks)) for task in tasks))


def tasks_of(pack: Pack) -> tuple[ShardTask, ...]:
    """The tasks of a shard, as what they are."""
    return tuple(task for task in pack.tasks if isinstance(task, ShardTask))


def format_plan(packs: Iterable[Pack]) -> str:
    """The plan as a file: a line a part."""
    lines = (
        {
            "shard": pack.number,
            "seconds": task.seconds,
            "num_channels": task.num_channels,
            **asdict(task.part),
        }
        for pack in packs
        for task in tasks_of(pack)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def parse_plan(text: str) -> list[Pack]:
    """Read what `format_plan` wrote.

    Raises:
        ConfigError: If it is damaged.
    """
    shards: dict[int, list[ShardTask]] = {}
    try:
        for line in text.splitlines():
            facts = json.loads(line)
            number, seconds = int(facts.pop("shard")), facts.pop("seconds")
            channels = facts.pop("num_channels")
            part = ClipPart(**facts)
            task = ShardTask(part.path, seconds, channels, part=part)
            shards.setdefault(number, []).append(task)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(
            "expected the plan of the run before, got a damaged one; "
            "make the shards again in another directory"
        ) from None
    return [pack_of(number, tasks) for number, tasks in sorted(shards.items())]


def _tasks(clip: Clip) -> Iterator[ShardTask]:
    for first in range(0, clip.num_frames, MAX_SHARD_FRAMES):
        count = min(MAX_SHARD_FRAMES, clip.num_frames - first)
        entry = clip.entry
        part = ClipPart(
            path=entry.path,
            size=entry.size,
            mtime_ns=entry.mtime_ns,
            file_frames=clip.num_frames,
            source_frame=first,
            num_frames=count,
            sha256=clip.sha256,
        )
        seconds = clip.info.duration_seconds * count / clip.num_frames
        yield ShardTask(entry.path, seconds, clip.info.num_channels, part=part)
