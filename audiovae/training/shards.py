"""Log-mel shards as training data: mapped into memory, and only what is drawn is read.

What the files are: `shard_index.py`. Who writes them: `shard_writer.py`, called by
`pipelines.preprocess`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.training.data import Corpus
from audiovae.training.shard_index import (
    DESCRIPTION_NAME,
    INDEX_NAME,
    LOG_MEL_DIR,
    WAVEFORM_DIR,
    ShardRow,
    ShardsDescription,
    parse_description,
    parse_rows,
)


def load_shards(directory: Path, config: SpectrogramConfig) -> Corpus:
    """Map shards into memory as a log-mel corpus; nothing is read until it is drawn.

    Args:
        directory: What `pipelines.preprocess` wrote.
        config: The spectrogram wanted; must be that of the shards.

    Raises:
        ConfigError: If these are no shards, of another spectrogram, damaged or empty.
    """
    _describe(directory, config)
    rows = _rows_of(directory)
    return _map(directory / LOG_MEL_DIR, rows, np.dtype(np.float16), config.num_mels)


def load_shard_waveforms(directory: Path, config: SpectrogramConfig) -> Corpus:
    """Map the waveforms of shards into memory as a corpus of samples.

    Args:
        directory: What `pipelines.preprocess --with-audio` wrote.
        config: Gives the sample rate wanted; must be that of the shards.

    Raises:
        ConfigError: As `load_shards`, and if the shards hold no waveforms.
    """
    if not _describe(directory, config).with_audio:
        raise ConfigError(
            f"{directory}: expected shards with waveforms, got log-mels alone; make them again "
            "in another directory with python -m pipelines.preprocess --with-audio"
        )
    rows = _rows_of(directory)
    hop = config.hop_samples
    frames = _map(directory / WAVEFORM_DIR, rows, np.dtype(np.int16), hop)
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
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: expected a description of shards, got a damaged or missing one ({error}); "
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


def _map(folder: Path, rows: Sequence[ShardRow], dtype: np.dtype[np.generic], width: int) -> Corpus:
    """Arrays `[frame, width]` of the shards that the rows name, and the rows' places in them."""
    numbers = {name: i for i, name in enumerate(sorted({row.shard for row in rows}))}
    arrays = tuple(_map_array(folder / name, dtype, width) for name in numbers)
    for row in rows:
        frames = len(arrays[numbers[row.shard]])
        if row.num_frames < 1 or not 0 <= row.first_frame <= frames - row.num_frames:
            raise ConfigError(
                f"{folder}: expected {row.path} inside {row.shard}, got frames "
                f"[{row.first_frame}, {row.first_frame + row.num_frames}) of {frames}; "
                "remove this directory of shards and make it again"
            )
    return Corpus(
        arrays,
        array_of=torch.tensor([numbers[row.shard] for row in rows]),
        starts=torch.tensor([row.first_frame for row in rows]),
        lengths=torch.tensor([row.num_frames for row in rows]),
        names=tuple(row.path for row in rows),
        mapped=True,
    )


def _map_array(path: Path, dtype: np.dtype[np.generic], width: int) -> Tensor:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: expected a whole shard, got a damaged or missing one ({error}); "
            "remove this directory of shards and make it again"
        ) from None
    if array.dtype != dtype or array.ndim != 2 or array.shape[1] != width:
        raise ConfigError(
            f"{path}: expected {dtype} [frame, {width}], "
            f"got {array.dtype} {list(array.shape)}; remove this directory of shards and make it "
            "again"
        )
    with warnings.catch_warnings():  # nobody writes to it
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(array)
