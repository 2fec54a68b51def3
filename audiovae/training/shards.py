"""Log-mel shards as training data: mapped into memory, and only what is drawn is read.

What the files are: `shard_index.py`. Who writes them: `shard_writer.py`, called by
`pipelines.preprocess`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.training.data import Corpus
from audiovae.training.shard_arrays import (
    ArrayKind,
    arrays_of,
    lies_inside,
    log_mels,
    waveforms,
)
from audiovae.training.shard_index import (
    DESCRIPTION_NAME,
    INDEX_NAME,
    ShardRow,
    ShardsDescription,
    parse_description,
    parse_rows,
)

_REMEDY: Final = "run python -m pipelines.preprocess as before, which makes it again"


def load_shards(directory: Path, config: SpectrogramConfig) -> Corpus:
    """Map shards into memory as a log-mel corpus; nothing is read until it is drawn.

    Args:
        directory: What `pipelines.preprocess` wrote.
        config: The spectrogram wanted; must be that of the shards.

    Raises:
        ConfigError: If these are no shards, of another spectrogram, damaged or empty.
    """
    rows = _checked_rows(directory, _describe(directory, config))
    return _map(directory, log_mels(config), rows)


def load_shard_waveforms(directory: Path, config: SpectrogramConfig) -> Corpus:
    """Map the waveforms of shards into memory as a corpus of samples.

    Args:
        directory: What `pipelines.preprocess --with-audio` wrote.
        config: Gives the sample rate wanted; must be that of the shards.

    Raises:
        ConfigError: As `load_shards`, and if the shards hold no waveforms.
    """
    description = _describe(directory, config)
    if not description.with_audio:
        raise ConfigError(
            f"{directory}: expected shards with waveforms, got log-mels alone; make them again "
            "in another directory with python -m pipelines.preprocess --with-audio"
        )
    rows = _checked_rows(directory, description)
    hop = config.hop_samples
    frames = _map(directory, waveforms(config), rows)
    return Corpus(
        tuple(array.view(-1) for array in frames.arrays),  # [frame, hop] to [sample]
        array_of=frames.array_of,
        starts=frames.starts * hop,
        lengths=torch.tensor([row.num_samples for row in rows]),
        names=frames.names,
        mapped=True,
    )


def _describe(directory: Path, config: SpectrogramConfig) -> ShardsDescription:
    path = directory / DESCRIPTION_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"{path}: expected a description of shards, got a damaged or missing one; "
            "make the shards with python -m pipelines.preprocess"
        ) from None
    return parse_description(text, str(path), config)


def _rows_of(directory: Path) -> list[ShardRow]:
    path = directory / INDEX_NAME
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    rows = parse_rows(text, str(path))
    if not rows:
        raise ConfigError(
            f"{directory}: expected shards with clips in them, got none; "
            "finish python -m pipelines.preprocess first"
        )
    return rows


def _checked_rows(directory: Path, description: ShardsDescription) -> list[ShardRow]:
    """The rows of the index, every array of their shards being there in its full size.

    Also those that nobody asked for: a directory is whole or it is not.
    """
    rows = _rows_of(directory)
    for kind in arrays_of(description):
        frames = {name: _num_frames(directory / kind.folder / name, kind) for name in _names(rows)}
        for row in rows:
            if not lies_inside(row, frames[row.shard], description):
                raise ConfigError(
                    f"{directory / INDEX_NAME}: expected {row.path} inside {row.shard}, got frames "
                    f"[{row.first_frame}, {row.first_frame + row.num_frames}) of "
                    f"{frames[row.shard]}; {_REMEDY}"
                )
    return rows


def _names(rows: Iterable[ShardRow]) -> list[str]:
    return sorted({row.shard for row in rows})


def _num_frames(path: Path, kind: ArrayKind) -> int:
    try:
        with path.open("rb") as file:
            start, size = file.read(kind.header_bytes), os.fstat(file.fileno()).st_size
    except OSError:
        start, size = b"", 0
    if frames := kind.frames_of(start, size):
        return frames
    raise ConfigError(f"{path}: expected a whole shard, got a damaged or missing one; {_REMEDY}")


def _map(directory: Path, kind: ArrayKind, rows: Sequence[ShardRow]) -> Corpus:
    """Arrays `[frame, width]` of the shards that the rows name, and the rows' places in them."""
    numbers = {name: i for i, name in enumerate(_names(rows))}
    return Corpus(
        tuple(_map_array(directory / kind.folder / name, kind) for name in numbers),
        array_of=torch.tensor([numbers[row.shard] for row in rows]),
        starts=torch.tensor([row.first_frame for row in rows]),
        lengths=torch.tensor([row.num_frames for row in rows]),
        names=tuple(row.path for row in rows),
        mapped=True,
    )


def _map_array(path: Path, kind: ArrayKind) -> Tensor:
    numbers = np.memmap(path, kind.dtype, mode="r", offset=kind.header_bytes)
    with warnings.catch_warnings():  # nobody writes to it
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(numbers.reshape(-1, kind.width))
