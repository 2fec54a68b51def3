"""Files to what the model knows of them: small arrays in one `.npz` for each file.

The counterpart of `transform.py`, one unit of work at a time and in bounded memory. What is kept
of a chunk is up to a `Measurement`, and so is how chunks become a file. Channels are averaged.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from audiovae.analysis.pooling import Arrays
from audiovae.audio import AudioInfo, mixed_to_mono
from audiovae.checkpoint import Model
from audiovae.chunks import batches_by_shape, chunk_range, core_range, padded_frames
from audiovae.codec import require_grid
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioVAEError, ConfigError
from audiovae.replacing import replacing
from audiovae.reports import FileReport, SpanReport, file_report
from audiovae.rows import stack_rows
from audiovae.sources import plan_spans, probe_source, read_signal
from audiovae.spectrogram import log_mel_window
from audiovae.stretches import Signal, Stopwatch, Stretch, held_samples

_CPU_BATCH_FRAMES = 1024
_GPU_BATCH_FRAMES = 64 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can say


class Measurement(Protocol):
    """What is kept of a sound."""

    def measure(
        self, log_mel: Tensor, num_frames: Tensor, core_frames: Sequence[int]
    ) -> list[Arrays]:
        """Measure chunks.

        Args:
            log_mel: `[batch, mel, frame]`, natural log of magnitude.
            num_frames: `[batch]`; frames beyond these are padding.
            core_frames: Of the first rows, the others being padding: how many frames count; those
                after them are counted by the next chunk.

        Returns:
            What is kept of each of the first rows.
        """

    def join(self, parts: Sequence[Arrays]) -> Arrays:
        """What is kept of neighbouring chunks, in order, as one."""

    def finish(self, whole: Arrays, seconds: float) -> Arrays:
        """What is written of a file of that length."""


def build_measurement(name: str, model: Model) -> Measurement:
    """The measurement of that name.

    Raises:
        ConfigError: If there is none.
    """
    from audiovae.analysis.embedding import Embedding
    from audiovae.analysis.profile import Profiling

    if name == "embedding":
        return Embedding(model)
    if name == "profile":
        return Profiling(model)
    raise ConfigError(f"expected the measurement embedding or profile, got '{name}'")


@dataclass(frozen=True)
class _Chunk:
    """One chunk of one file."""

    file: int
    core_frames: int
    log_mel: Tensor  # [mel, frame]


class Measurer:
    """Measures files. Safe to share between threads."""

    def __init__(self, model: Model, measurement: Measurement) -> None:
        """Work where the model is.

        Raises:
            ModelMismatchError: If its spectrogram has another grid than files have.
        """
        require_grid(model)
        self._device = model.device
        self._spectrogram = model.config.spectrogram
        self._measurement = measurement
        on_cpu = self._device.type == "cpu"
        self._batch_frames = _CPU_BATCH_FRAMES if on_cpu else _GPU_BATCH_FRAMES

    def measure_file(self, source: Path) -> Arrays:
        """Measure one file of any length.

        Raises:
            AudioReadError: If it cannot be read.
        """
        info = probe_source(source)
        spans = [self._span(source, *span, Stopwatch()) for span in plan_spans(info)]
        return self._measurement.finish(self._measurement.join(spans), info.duration_seconds)

    def process_files(
        self, jobs: Sequence[tuple[Path, Mapping[str, Path]]]
    ) -> list[FileReport | AudioVAEError]:
        """Measure short files together; a bad one does not spoil the others."""
        results: dict[int, FileReport | AudioVAEError] = {}
        infos: dict[int, AudioInfo] = {}
        chunks: list[_Chunk] = []
        watch = Stopwatch()
        for index, (source, _) in enumerate(jobs):
            try:
                with watch.stage("decode"):
                    infos[index], signal = read_signal(source, self._spectrogram)
                with watch.stage("mel"):
                    chunks += _chunks(index, signal, self._spectrogram)
            except AudioVAEError as error:
                results[index] = error
        with watch.stage("encode"):
            kept = self._measure(chunks)
        share = {name: seconds / max(1, len(infos)) for name, seconds in watch.seconds.items()}
        for index, info in infos.items():
            own = Stopwatch(dict(share))
            parts = [k for k, chunk in zip(kept, chunks, strict=True) if chunk.file == index]
            results[index] = self._write(jobs[index][1], info, parts, own)
        return [results[index] for index in range(len(jobs))]

    def process_span(
        self, source: Path, part: Path, first_chunk: int, last_chunk: int
    ) -> SpanReport:
        """Measure a run of chunks of a long file, into a part file."""
        watch = Stopwatch()
        save_arrays(part, self._span(source, first_chunk, last_chunk, watch))
        return SpanReport(0, math.nan, 0.0, watch.seconds)

    def assemble(
        self,
        source: Path,
        parts: Sequence[Path],
        reports: Sequence[SpanReport],
        outputs: Mapping[str, Path],
    ) -> FileReport:
        """Join the parts of a long file and write what is kept of it."""
        watch = Stopwatch()
        for report in reports:
            for stage, seconds in report.timings_seconds.items():
                watch.seconds[stage] = watch.seconds.get(stage, 0.0) + seconds
        loaded = [load_arrays(part) for part in parts]
        return self._write(outputs, probe_source(source), loaded, watch)

    def _span(self, source: Path, first: int, last: int, watch: Stopwatch) -> Arrays:
        with watch.stage("decode"):
            _, signal = read_signal(source, self._spectrogram, first, last)
        with watch.stage("mel"):
            chunks = list(_chunks(0, signal, self._spectrogram))
        with watch.stage("encode"):
            return self._measurement.join(self._measure(chunks))

    @torch.inference_mode()
    def _measure(self, chunks: Sequence[_Chunk]) -> list[Arrays]:
        kept: dict[int, Arrays] = {}
        shapes = [padded_frames(chunk.log_mel.shape[1]) for chunk in chunks]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            log_mel, lengths = stack_rows(
                [chunks[i].log_mel for i in indices], shape, self._batch_frames, self._device
            )
            cores = [chunks[i].core_frames for i in indices]
            made = self._measurement.measure(log_mel, lengths, cores)
            kept |= dict(zip(indices, made, strict=True))
        return [kept[i] for i in range(len(chunks))]

    def _write(
        self,
        outputs: Mapping[str, Path],
        info: AudioInfo,
        parts: Sequence[Arrays],
        watch: Stopwatch,
    ) -> FileReport:
        with watch.stage("write"):
            joined = self._measurement.join(parts)
            (destination,) = outputs.values()
            save_arrays(destination, self._measurement.finish(joined, info.duration_seconds))
        return file_report(info, [SpanReport(0, math.nan, 0.0, watch.seconds)], None)


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as an uncompressed `.npz` of any name, whole or not at all.

    Same arrays, same bytes: `np.savez` would put the time of day into them.
    """
    with replacing(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def load_arrays(path: Path) -> Arrays:
    """Read what `save_arrays` wrote.

    Raises:
        ConfigError: If it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, LookupError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        raise ConfigError(
            f"{path}: expected what was measured of a file, got a damaged one; remove it and run "
            "the same command again"
        ) from None


def _chunks(file: int, signal: Signal, config: SpectrogramConfig) -> Iterator[_Chunk]:
    """The wanted chunks of a signal, each with its channels mixed to one."""
    stretch = signal.stretch
    total = stretch.frames(config)
    for index in range(stretch.first_chunk, stretch.last_chunk):
        frames = chunk_range(index, total)
        start, stop = Stretch(stretch.num_samples, index, index + 1).samples_needed(config)
        mono = mixed_to_mono(signal.waveform[:, start - signal.offset : stop - signal.offset])
        read = held_samples(mono, start)
        log_mel = log_mel_window(read, stretch.num_samples, frames.start, frames.stop, config)
        yield _Chunk(file, len(core_range(index, total)), log_mel[0])
