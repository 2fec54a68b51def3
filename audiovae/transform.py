"""Files through the model and back to files: one unit of work at a time, in bounded memory.

A unit is a pack of short files, or a run of chunks of one long file; a long file's parts are
joined when all of them are there.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audiovae.audio import (
    AudioInfo,
    AudioWriter,
    Clip,
    ResampledReader,
    StreamResampler,
    probe_audio,
    resample,
)
from audiovae.checkpoint import Model
from audiovae.chunks import num_chunks
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioVAEError, ConfigError
from audiovae.reconstruct import (
    Reconstruction,
    Reconstructor,
    Signal,
    Stopwatch,
    samples_needed,
)
from audiovae.spectrogram import num_frames

SPAN_CHUNKS = 8
"""Chunks of one span: 92 s, so that a 10-hour file costs no more memory than a short one."""
DEFAULT_QUALITY = 6
_WRITE_SAMPLES = 1 << 18

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class TransformSettings:
    """What is done to every file, the same for a whole batch."""

    quality: int = DEFAULT_QUALITY
    seed: int = 0
    format: Literal["wav", "flac", "ogg"] | None = None
    """None: by the destination's suffix."""


@dataclass(frozen=True)
class SpanReport:
    """Sums over a span that add up to a file's figures.

    Attributes:
        frames: Log-mel frames, all channels that were coded.
        bits: The model's own estimate of their code length.
        error_db: Sum over frames of the mean absolute log-mel difference.
        timings_seconds: Wall time by stage: decode, mel, encode, vocode, write.
    """

    frames: int
    bits: float
    error_db: float
    timings_seconds: dict[str, float]


@dataclass(frozen=True)
class FileReport:
    """What is known of a finished file.

    Attributes:
        seconds: Length.
        sample_rate: Hz, of source and output.
        num_channels: Of source and output.
        estimated_kbps: The model's own estimate, all channels together.
        log_mel_l1_db: Mean absolute difference of decoded and original log-mel.
        timings_seconds: Wall time by stage: decode, mel, encode, vocode, write.
    """

    seconds: float
    sample_rate: int
    num_channels: int
    estimated_kbps: float
    log_mel_l1_db: float
    timings_seconds: dict[str, float]


def plan_spans(info: AudioInfo) -> tuple[tuple[int, int], ...]:
    """Runs of chunks `[first, last)` in which a file is done; one if it is short."""
    config = SpectrogramConfig()
    samples = -(-info.num_samples * config.sample_rate // info.sample_rate)
    total = num_chunks(num_frames(samples, config))
    return tuple((i, min(i + SPAN_CHUNKS, total)) for i in range(0, total, SPAN_CHUNKS))


def resynthesize(clip: Clip, model: Model, quality: int = DEFAULT_QUALITY) -> Clip:
    """Send a clip through the model's latents and back.

    Args:
        clip: Any sample rate and number of channels.
        model: From `load_model`.
        quality: 1 (smallest) to 8 (best).

    Returns:
        A clip of the same sample rate, length and channels.

    Raises:
        ConfigError: If the model has no such quality.
    """
    settings = TransformSettings(quality=quality)
    reconstructor = _reconstructor(model, settings, str(model.device))
    rate = model.config.spectrogram.sample_rate
    waveform = resample(clip.waveform, clip.sample_rate, rate)
    signal = _whole(waveform, model.config.spectrogram)
    sound = reconstructor.run([signal], Stopwatch())[0].sound
    sound = resample(sound, rate, clip.sample_rate)
    return Clip(sound[:, : clip.num_samples], clip.sample_rate, clip.bit_depth)


def resynthesize_file(
    source: Path,
    destination: Path,
    model: Model,
    quality: int = DEFAULT_QUALITY,
    device: str = "cpu",
) -> FileReport:
    """Resynthesise one file of any length in bounded memory; the format follows the suffix.

    Raises:
        AudioVAEError: If the source cannot be read or the destination not written.
    """
    settings = TransformSettings(quality=quality)
    transformer = Transformer(model, settings, device)
    spans = plan_spans(probe_audio(source))
    if len(spans) == 1:
        report = transformer.resynthesize_files([(source, destination)])[0]
        if isinstance(report, AudioVAEError):
            raise report
        return report
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".audiovae_") as folder:
        parts = [Path(folder) / f"{index:05d}" for index in range(len(spans))]
        reports = [
            transformer.resynthesize_span(source, part, first, last)
            for part, (first, last) in zip(parts, spans, strict=True)
        ]
        return transformer.assemble(source, parts, reports, destination)


class Transformer:
    """Runs units of work through one model. Safe to share between threads."""

    def __init__(self, model: Model, settings: TransformSettings, device: str = "cpu") -> None:
        """Move the model to `device` and look up the quality.

        Raises:
            ConfigError: If the model has no such quality.
        """
        self._reconstructor = _reconstructor(model, settings, device)
        self._spectrogram = model.config.spectrogram
        self._format = settings.format

    def resynthesize_files(
        self, jobs: Sequence[tuple[Path, Path]]
    ) -> list[FileReport | AudioVAEError]:
        """Resynthesise short files together; a bad one does not spoil the others.

        Args:
            jobs: `(source, destination)` of each.

        Returns:
            The report, or the error, of each, in order.
        """
        results: dict[int, FileReport | AudioVAEError] = {}
        signals: dict[int, tuple[AudioInfo, Signal]] = {}
        watch = Stopwatch()
        with watch.stage("decode"):
            for index, (source, _) in enumerate(jobs):
                try:
                    signals[index] = self._load(source)
                except AudioVAEError as error:
                    results[index] = error
        done = self._reconstructor.run([signal for _, signal in signals.values()], watch)
        total = sum(one.frames for one in done)
        for (index, (info, _)), result in zip(signals.items(), done, strict=True):
            # The stages before are shared by the pack: a file's part is its share of the frames.
            share = result.frames / total
            own = Stopwatch({name: s * share for name, s in watch.seconds.items()})
            try:
                with own.stage("write"):
                    self._write(jobs[index][1], [result.sound], info)
                results[index] = _file_report(info, [_span_report(result, own)])
            except AudioVAEError as error:
                results[index] = error
        return [results[index] for index in range(len(jobs))]

    def resynthesize_span(
        self, source: Path, part: Path, first_chunk: int, last_chunk: int
    ) -> SpanReport:
        """Resynthesise chunks `[first_chunk, last_chunk)` of a long file into a part file.

        The part holds the sound of those chunks' cores, `[channel, sample]` at the model's rate.
        """
        watch = Stopwatch()
        with watch.stage("decode"), self._open(source) as reader:
            start, stop = samples_needed(
                first_chunk, last_chunk, reader.num_samples, self._spectrogram
            )
            waveform = reader.read(start, stop)
            signal = Signal(waveform, start, reader.num_samples, first_chunk, last_chunk)
        result = self._reconstructor.run([signal], watch)[0]
        with watch.stage("write"):
            temporary = part.with_name(part.name + ".tmp")
            with temporary.open("wb") as file:
                np.save(file, result.sound)
            temporary.replace(part)
        return _span_report(result, watch)

    def assemble(
        self,
        source: Path,
        parts: Sequence[Path],
        reports: Sequence[SpanReport],
        destination: Path,
    ) -> FileReport:
        """Join the parts of a file in order and write it atomically; deletes nothing."""
        watch = Stopwatch()
        with watch.stage("write"):
            with self._open(source) as reader:
                info = reader.info
            self._write(destination, (np.load(part) for part in parts), info)
        return _file_report(info, [*reports, SpanReport(0, 0.0, 0.0, watch.seconds)])

    def _open(self, source: Path) -> ResampledReader:
        return ResampledReader(source, self._spectrogram.sample_rate)

    def _load(self, source: Path) -> tuple[AudioInfo, Signal]:
        with self._open(source) as reader:
            waveform = reader.read(0, reader.num_samples)
            return reader.info, _whole(waveform, self._spectrogram)

    def _write(self, destination: Path, pieces: Iterable[Waveform], info: AudioInfo) -> None:
        """Write pieces at the source's rate, exactly as long as the source."""
        resampler = StreamResampler(
            self._spectrogram.sample_rate, info.sample_rate, info.num_channels
        )
        left = info.num_samples
        with ExitStack() as stack:
            writer = stack.enter_context(
                AudioWriter(
                    destination,
                    sample_rate=info.sample_rate,
                    num_channels=info.num_channels,
                    bit_depth=info.bit_depth,
                    format=self._format,
                )
            )
            for block in _resampled(resampler, pieces):
                writer.write(block[:, :left])
                left -= min(left, block.shape[1])


def _resampled(resampler: StreamResampler, pieces: Iterable[Waveform]) -> Iterable[Waveform]:
    for piece in pieces:
        for start in range(0, piece.shape[1], _WRITE_SAMPLES):
            yield resampler.push(piece[:, start : start + _WRITE_SAMPLES])
    yield resampler.flush()


def _reconstructor(model: Model, settings: TransformSettings, device: str) -> Reconstructor:
    return Reconstructor(model, quality_lambda(model, settings.quality), settings.seed, device)


def quality_lambda(model: Model, quality: int) -> float | None:
    """Log lambda of a quality; None for a model that is not conditioned on it.

    Raises:
        ConfigError: If the model's scale has no such quality.
    """
    if not model.quality_scale:
        return None
    for point in model.quality_scale:
        if point.quality == quality:
            return point.log_lambda
    known = [point.quality for point in model.quality_scale]
    raise ConfigError(
        f"expected a quality from {min(known)} to {max(known)}, got {quality}; "
        "1 is the smallest file, 8 the best sound"
    )


def _whole(waveform: Waveform, config: SpectrogramConfig) -> Signal:
    samples = waveform.shape[1]
    return Signal(waveform, 0, samples, 0, num_chunks(num_frames(samples, config)))


def _span_report(result: Reconstruction, watch: Stopwatch) -> SpanReport:
    return SpanReport(result.frames, result.bits, result.error_db, watch.seconds)


def _file_report(info: AudioInfo, spans: Sequence[SpanReport]) -> FileReport:
    seconds = info.duration_seconds
    timings: dict[str, float] = {}
    for span in spans:
        for name, value in span.timings_seconds.items():
            timings[name] = timings.get(name, 0.0) + value
    frames = sum(span.frames for span in spans)
    return FileReport(
        seconds=seconds,
        sample_rate=info.sample_rate,
        num_channels=info.num_channels,
        estimated_kbps=math.fsum(span.bits for span in spans) / seconds / 1000,
        log_mel_l1_db=math.fsum(span.error_db for span in spans) / frames,
        timings_seconds=timings,
    )
