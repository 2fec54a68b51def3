"""Log-mel shards: a corpus larger than memory as a few large files.

    shards.json          format, version and the spectrogram config; others are refused
    index.jsonl          a row a clip: path, shard, first_frame, num_frames, sample_rate, seconds
    shards/00000.npy     float16 [frame, mel], read through the page cache

A clip lies in one shard. The index is the truth: its rows are written once their shard is whole
and has its name, so a writer that is killed at any moment loses the open shard and nothing else,
and the next one goes on behind the last row.
"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from audiovae import audio
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioReadError, ConfigError
from audiovae.training.data import Corpus, Progress, audio_paths, log_mel_pieces

_LOG = logging.getLogger(__name__)
SHARD_FRAMES = 1 << 18
"""A shard is closed once it holds this many frames: 51 minutes, 64 MiB at 128 mels."""
_DESCRIPTION_NAME = "shards.json"
_INDEX_NAME = "index.jsonl"
_FORMAT = "audiovae-log-mel"
_VERSION = 1


@dataclass(frozen=True)
class ShardRow:
    """Where one clip lies.

    Attributes:
        path: Of the audio file, relative to the source directory.
        shard: Name of the shard's file.
        first_frame: Place of the first frame in the shard.
        num_frames: Length.
        sample_rate: Of the audio file, Hz.
        seconds: Of the audio file.
    """

    path: str
    shard: str
    first_frame: int
    num_frames: int
    sample_rate: int
    seconds: float


@dataclass(frozen=True)
class ShardsReport:
    """What became of a source directory.

    Attributes:
        written: Clips added.
        known: Clips that were there already.
        failed: One line a file that cannot be read.
    """

    written: int
    known: int
    failed: tuple[str, ...]


def is_shards(directory: Path) -> bool:
    """Whether a directory says that it holds shards."""
    return (directory / _DESCRIPTION_NAME).is_file()


def load_shards(directory: Path, config: SpectrogramConfig) -> Corpus:
    """Map shards into memory as a log-mel corpus; nothing is read until it is drawn.

    Args:
        directory: What `write_shards` wrote.
        config: The spectrogram wanted; must be that of the shards.

    Raises:
        ConfigError: If these are no shards, of another spectrogram, damaged or empty.
    """
    _check_description(directory, config)
    rows = _read_index(directory)
    if not rows:
        raise ConfigError(
            f"{directory}: expected shards with clips in them, got none; "
            "finish python -m pipelines.preprocess first"
        )
    names = {name: i for i, name in enumerate(sorted({row.shard for row in rows}))}
    arrays = tuple(_map_shard(directory / "shards" / name, config) for name in names)
    for row in rows:
        frames = len(arrays[names[row.shard]])
        if row.num_frames < 1 or not 0 <= row.first_frame <= frames - row.num_frames:
            raise ConfigError(
                f"{directory}: expected {row.path} inside {row.shard}, got frames "
                f"[{row.first_frame}, {row.first_frame + row.num_frames}) of {frames}; "
                "make the shards again"
            )
    return Corpus(
        arrays,
        array_of=torch.tensor([names[row.shard] for row in rows]),
        starts=torch.tensor([row.first_frame for row in rows]),
        lengths=torch.tensor([row.num_frames for row in rows]),
        names=tuple(row.path for row in rows),
        mapped=True,
    )


def write_shards(
    source: Path, directory: Path, config: SpectrogramConfig, progress: Progress | None = None
) -> ShardsReport:
    """Turn a directory of audio into shards; clips that are in the index already are left.

    Memory does not grow with the length of a file. A file is known by its path: one that was
    changed later is not read again.

    Raises:
        ConfigError: If there is no audio, or the shards there are of another spectrogram.
    """
    paths = audio_paths(source)
    (directory / "shards").mkdir(parents=True, exist_ok=True)
    if is_shards(directory):
        _check_description(directory, config)
    else:
        _write_description(directory, config)
    writer = _ShardWriter(directory, config)
    known = {row.path for row in writer.rows}
    written, failed = 0, []
    for done, path in enumerate(paths, start=1):
        name = path.relative_to(source).as_posix()
        if name not in known:
            try:
                _add_file(writer, path, name, config)
                written += 1
            except AudioReadError as error:
                failed.append(str(error))
                _LOG.warning("left out: %s", error)
        if progress:
            progress(done, len(paths))
    writer.close_shard()
    return ShardsReport(written, len(paths) - written - len(failed), tuple(failed))


class _ShardWriter:
    """Appends clips to shards, and rows to the index when a shard is whole."""

    def __init__(self, directory: Path, config: SpectrogramConfig) -> None:
        self._directory, self._num_mels = directory, config.num_mels
        self.rows = _read_index(directory)
        self._index = directory / _INDEX_NAME
        if self._index.is_file():  # cut off what a killed writer left unfinished
            os.truncate(self._index, self._index.read_bytes().rfind(b"\n") + 1)
        self._open_rows: list[ShardRow] = []
        self._file: BinaryIO | None = None
        self._frames = 0
        numbers = [int(row.shard.removesuffix(".npy")) for row in self.rows]
        self._number = max(numbers, default=-1) + 1

    def add(self, name: str, pieces: Iterable[Tensor], sample_rate: int, seconds: float) -> None:
        """Append a clip of `[frame, mel]` pieces; one that fails half-way leaves no trace."""
        if self._file is None:
            self._file = self._temporary.open("wb")
            self._file.write(_npy_header(0, self._num_mels))
        before = self._file.tell()
        count = 0
        try:
            for piece in pieces:
                self._file.write(piece.contiguous().numpy().tobytes())
                count += len(piece)
        except AudioReadError:
            self._file.seek(before)
            self._file.truncate()
            raise
        row = ShardRow(name, self._path.name, self._frames, count, sample_rate, seconds)
        self._open_rows.append(row)
        self._frames += count
        if self._frames >= SHARD_FRAMES:
            self.close_shard()

    def close_shard(self) -> None:
        """Give the open shard its size and its name, then its rows to the index."""
        if self._file is None:
            return
        self._file.seek(0)
        self._file.write(_npy_header(self._frames, self._num_mels))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._open_rows:
            os.replace(self._temporary, self._path)
            lines = "".join(json.dumps(asdict(row)) + "\n" for row in self._open_rows)
            with self._index.open("a", encoding="utf-8") as index:
                index.write(lines)
                index.flush()
                os.fsync(index.fileno())
            self._number += 1
        else:
            self._temporary.unlink()
        self.rows += self._open_rows
        self._open_rows, self._file, self._frames = [], None, 0

    @property
    def _path(self) -> Path:
        return self._directory / "shards" / f"{self._number:05d}.npy"

    @property
    def _temporary(self) -> Path:
        return self._path.with_suffix(".npy.tmp")


def _add_file(writer: _ShardWriter, path: Path, name: str, config: SpectrogramConfig) -> None:
    with audio.ResampledReader(path, config.sample_rate) as reader:
        pieces = log_mel_pieces(
            lambda start, stop: reader.read(start, stop).mean(axis=0, keepdims=True),
            reader.num_samples,
            config,
        )
        writer.add(name, pieces, reader.info.sample_rate, reader.info.duration_seconds)


def _npy_header(num_frames: int, num_mels: int) -> bytes:
    """Header of a float16 `[frame, mel]` array; as long for any number of frames."""
    header = io.BytesIO()
    facts = {"descr": "<f2", "fortran_order": False, "shape": (num_frames, num_mels)}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def _map_shard(path: Path, config: SpectrogramConfig) -> Tensor:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: expected a whole shard, got a damaged or missing one ({error}); "
            "make the shards again"
        ) from None
    if array.dtype != np.float16 or array.ndim != 2 or array.shape[1] != config.num_mels:
        raise ConfigError(
            f"{path}: expected float16 [frame, {config.num_mels}], "
            f"got {array.dtype} {list(array.shape)}; make the shards again"
        )
    with warnings.catch_warnings():  # nobody writes to it
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(array)


def _write_description(directory: Path, config: SpectrogramConfig) -> None:
    facts = {"format": _FORMAT, "version": _VERSION, "spectrogram": config.model_dump(mode="json")}
    temporary = directory / (_DESCRIPTION_NAME + ".tmp")
    temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, directory / _DESCRIPTION_NAME)


def _check_description(directory: Path, config: SpectrogramConfig) -> None:
    path = directory / _DESCRIPTION_NAME
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        found = (facts["format"], facts["version"])
        settings = dict(facts["spectrogram"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: expected a description of shards, got a damaged or missing one ({error}); "
            "make the shards again with python -m pipelines.preprocess"
        ) from None
    if found != (_FORMAT, _VERSION):
        raise ConfigError(f"{path}: expected {_FORMAT} version {_VERSION}, got {found}")
    for name, wanted in config.model_dump(mode="json").items():
        if settings.get(name) != wanted:
            raise ConfigError(
                f"{path}: expected shards with spectrogram.{name} = {wanted}, got "
                f"{settings.get(name)}; make shards for this config in another directory"
            )


def _read_index(directory: Path) -> list[ShardRow]:
    """Rows of the index, without what a killed writer left unfinished at its end."""
    path = directory / _INDEX_NAME
    if not path.is_file():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    try:
        return [ShardRow(**json.loads(line)) for line in whole.splitlines()]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: expected a row of JSON a line, got a damaged one ({error}); "
            "make the shards again"
        ) from None
