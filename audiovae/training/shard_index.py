"""Which clips lie where in log-mel shards: the two small files beside the large ones.

    shards.json            format, version, the spectrogram config, whether there are waveforms
    index.jsonl            a row a clip (`ShardRow`), sorted by shard and place
    shards/00000.npy       float16 [frame, mel]
    waveforms/00000.npy    int16 [frame, sample of a hop]: the same frames as sound; on request

A clip lies in one shard, unless it is longer than one: then each of its parts has a row. Nothing
here needs torch, so that what has nothing to do is done at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError

DESCRIPTION_NAME: Final = "shards.json"
INDEX_NAME: Final = "index.jsonl"
_FORMAT: Final = "audiovae-log-mel"
_VERSION: Final = 2
_SHARD_NAME: Final = re.compile(r"[0-9]{1,18}\.npy")
_READABLE: Final = (1, 2)  # version 1 lacks all that has a default below


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Where one clip, or one part of a long one, lies.

    Attributes:
        path: Of the audio file, relative to the source directory.
        shard: Name of the shard's file.
        first_frame: Place of the first frame in the shard.
        num_frames: Length.
        sample_rate: Of the audio file, Hz.
        seconds: Of the audio file.
        source_frame: Frame of the audio file with which this part begins.
        file_frames: Frames of the whole audio file; 0 if not known.
        num_samples: Length of the waveform at the shards' rate; the rest of its last frame is 0.
        size: Of the audio file, bytes; -1 if not known.
        mtime_ns: Of the audio file; -1 if not known.
        sha256: Of the audio file's bytes, if duplicates were looked for and it had a rival.
    """

    path: str
    shard: str
    first_frame: int
    num_frames: int
    sample_rate: int
    seconds: float
    source_frame: int = 0
    file_frames: int = 0
    num_samples: int = 0
    size: int = -1
    mtime_ns: int = -1
    sha256: str = ""


_TEXTS: Final = attrgetter("path", "shard", "sha256")
_COUNTS: Final = attrgetter(
    "first_frame",
    "num_frames",
    "sample_rate",
    "source_frame",
    "file_frames",
    "num_samples",
    "size",
    "mtime_ns",
)


@dataclass(frozen=True, slots=True)
class ClipPart:
    """A file, or a part of a long one, that is to go into a shard.

    Attributes:
        path: Of the file, relative to the source directory.
        size: Of the file, bytes.
        mtime_ns: Of the file.
        file_frames: Mel frames of the whole file.
        source_frame: The first frame that is wanted.
        num_frames: How many.
        sha256: Of its bytes, if that was computed.
    """

    path: str
    size: int
    mtime_ns: int
    file_frames: int
    source_frame: int
    num_frames: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ShardsDescription:
    """What all shards of a directory have in common.

    Attributes:
        spectrogram: What their frames are.
        with_audio: Whether the waveforms are kept beside.
    """

    spectrogram: SpectrogramConfig
    with_audio: bool = False


def is_shards(directory: Path) -> bool:
    """Whether a directory says that it holds shards."""
    return (directory / DESCRIPTION_NAME).is_file()


def format_description(description: ShardsDescription) -> str:
    """The text of `shards.json`."""
    spectrogram = description.spectrogram.model_dump(mode="json")
    facts = {"format": _FORMAT, "version": _VERSION, "with_audio": description.with_audio}
    return json.dumps({**facts, "spectrogram": spectrogram}, indent=1) + "\n"


def parse_description(text: str, place: str, config: SpectrogramConfig) -> ShardsDescription:
    """Read `shards.json`.

    Args:
        text: Of the file.
        place: Where it lies, for messages.
        config: The spectrogram wanted; must be that of the shards.

    Raises:
        ConfigError: If it is damaged, of another version or of another spectrogram.
    """
    try:
        facts = json.loads(text)
        kind, version = facts["format"], facts["version"]
        settings = dict(facts["spectrogram"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{place}: expected a description of shards, got a damaged one; "
            "remove this directory of shards and make it again with python -m pipelines.preprocess"
        ) from None
    if kind != _FORMAT or version not in _READABLE:
        raise ConfigError(
            f"{place}: expected {_FORMAT} version {_VERSION}, got {kind} version {version}; "
            "remove this directory of shards and make it again, or update audiovae"
        )
    for name, wanted in config.model_dump(mode="json").items():
        if settings.get(name) != wanted:
            raise ConfigError(
                f"{place}: expected shards with spectrogram.{name} = {wanted}, got "
                f"{settings.get(name)}; make shards for this config in another directory"
            )
    return ShardsDescription(config, bool(facts.get("with_audio", False)))


def parse_rows(text: str, place: str) -> list[ShardRow]:
    """Read `index.jsonl`, without a torn last row.

    Raises:
        ConfigError: If a row cannot be read.
    """
    whole, _, _ = text.rpartition("\n")
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(parse_row(json.loads(line)))
        except (ValueError, TypeError):
            raise ConfigError(
                f"{place}: expected a row of JSON a line, got a damaged one in line {number}; "
                "remove this directory of shards and make it again"
            ) from None
    return rows


def parse_row(facts: dict[str, object]) -> ShardRow:
    """A row of which every value is of its kind, and the shard's name no way out of its folder.

    Raises:
        ValueError: If it is not.
        TypeError: If a value is missing, or one too many.
    """
    row = ShardRow(**facts)  # type: ignore[arg-type]
    right = all(type(value) is str for value in _TEXTS(row))
    right = right and all(type(value) is int for value in _COUNTS(row))
    if not right or not _SHARD_NAME.fullmatch(row.shard):
        raise ValueError(f"expected a row of the index, got {facts}; make the shards again")
    return row


def format_rows(rows: Iterable[ShardRow]) -> str:
    """The text of `index.jsonl`."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)
