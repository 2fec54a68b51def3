"""The timbre of files, and of directories of files.

What is measured is bounded: eight chunks (95 s) spread over a file, a hundred files spread over a
directory. More would change the mean little and cost hours in a large archive.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from audiovae.audio import audio_files_below, probe_audio
from audiovae.audio.resample import resampled_length
from audiovae.checkpoint import Model
from audiovae.chunks import num_chunks
from audiovae.clips import encode_rows
from audiovae.compressed import quality_lambda
from audiovae.errors import AudioReadError, EmptyAudioError, NotAudioError
from audiovae.rows import Row, chunk_rows
from audiovae.sources import read_signal
from audiovae.spectrogram import num_frames
from audiovae.timbre.library import TimbreLibrary, saved_timbre, timbre_from_bytes
from audiovae.timbre.value import Timbre, mean_timbre, timbre_of
from audiovae.transform import DEFAULT_QUALITY

_MAX_CHUNKS = 8
_MAX_FILES = 100
_AUDIBLE_NATS = 2.0  # above the floor of a log-mel: about -80 dBFS

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredTimbre:
    """A timbre, and what it was measured on.

    Attributes:
        timbre: The mean over the files, each counting once.
        num_files: Files that were measured.
        num_failed: Files of the directory that could not be read.
    """

    timbre: Timbre
    num_files: int
    num_failed: int = 0


def find_timbre(
    target: str, model: Model, library: TimbreLibrary, *, quality: int = DEFAULT_QUALITY
) -> Timbre:
    """The timbre that a user names.

    Args:
        target: An audio file, a directory of audio, a timbre file, or the name of a saved timbre.
        model: That measures, or that measured.
        library: Of saved timbres.
        quality: For a model that is conditioned on it.

    Raises:
        AudioReadError: If the audio cannot be read.
        CheckpointError: If there is no such file or name, or the timbre file is damaged.
        ModelMismatchError: If the saved timbre is of another model.
    """
    saved = saved_timbre(target, library)
    if saved is None:
        return measure_timbre([Path(target)], model, quality=quality).timbre
    timbre = timbre_from_bytes(saved, target)
    timbre.require_model(model.id)
    return timbre


def measure_timbre(
    sources: Sequence[Path], model: Model, *, quality: int = DEFAULT_QUALITY
) -> MeasuredTimbre:
    """The mean timbre of audio files, and of those in directories.

    Args:
        sources: Files and directories; in a directory, a file that cannot be read is left out.
        model: That measures.
        quality: For a model that is conditioned on it.

    Raises:
        AudioReadError: If a named file cannot be read, or a directory holds no audio.
    """
    timbres: list[Timbre] = []
    failed = 0
    for source in sources:
        found = audio_files(source) if source.is_dir() else [source]
        own: list[Timbre] = []
        for file in found:
            try:
                own.append(file_timbre(file, model, quality=quality))
            except AudioReadError as error:
                if file == source:
                    raise
                _logger.warning("timbre=left_out reason=%s", error)
        if not own:
            raise NotAudioError(
                f"{source}: expected audio files in this directory, got {len(found)} that cannot "
                "be read; name another directory"
            )
        timbres += own
        failed += len(found) - len(own)
    return MeasuredTimbre(mean_timbre(timbres), len(timbres), failed)


@torch.inference_mode()
def file_timbre(path: Path, model: Model, *, quality: int = DEFAULT_QUALITY) -> Timbre:
    """The timbre of one audio file of any length.

    Raises:
        AudioReadError: If it cannot be read, or is silent.
        ConfigError: If the model has no such quality.
    """
    rows = list(_spread_rows(path, model))
    audible = model.config.spectrogram.log_floor + _AUDIBLE_NATS
    if not any(bool((row.log_mel > audible).any()) for row in rows):
        raise EmptyAudioError(
            f"{path}: expected sound to take a timbre from, got silence; leave this file out"
        )
    return timbre_of(encode_rows(rows, model, quality_lambda(model, quality)))


def audio_files(folder: Path) -> list[Path]:
    """At most a hundred files named like audio below a folder, spread over all of them.

    Raises:
        NotAudioError: If there is none.
    """
    found = audio_files_below(folder)
    if not found:
        raise NotAudioError(
            f"{folder}: expected a directory with audio files, got one without; "
            "name a file or another directory"
        )
    return [found[at] for at in _spread(len(found), _MAX_FILES)]


def _spread_rows(path: Path, model: Model) -> Iterator[Row]:
    """The chunks of a short file, or some spread over a long one."""
    config = model.config.spectrogram
    info = probe_audio(path)
    samples = resampled_length(info.num_samples, info.sample_rate, config.sample_rate)
    total = num_chunks(num_frames(samples, config))
    if total <= _MAX_CHUNKS:
        yield from chunk_rows(0, read_signal(path, config)[1])
        return
    for chunk in _spread(total, _MAX_CHUNKS):
        signal = read_signal(path, config, chunk, chunk + 1)[1]
        yield from (row for row in chunk_rows(0, signal) if row.chunk == chunk)


def _spread(count: int, most: int) -> list[int]:
    """All of `count` indices, or `most` of them spread evenly.

    >>> _spread(3, 8), _spread(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
