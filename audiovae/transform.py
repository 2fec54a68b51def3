"""Files through the model and back to files: one unit of work at a time, in bounded memory.

A unit is a pack of short files, or a span (a run of chunks) of one long file; a long file's parts
are joined when all of them are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from audiovae.audio import AudioInfo, AudioWriter, StreamResampler, Waveform, is_compressed
from audiovae.checkpoint import Model
from audiovae.codec import AvaeReader, DamagedChunkError, require_grid
from audiovae.compressed import file_header, quality_lambda, write_spans
from audiovae.errors import AudioVAEError, BitstreamError, ConfigError
from audiovae.parts import Part, load_part, save_part
from audiovae.rate import LambdaSearch
from audiovae.reconstruct import Reconstructor
from audiovae.reports import FileReport, SpanReport, file_report, span_report
from audiovae.sources import CompressedSound, info_of, probe_source, read_signal
from audiovae.stretches import Coded, Coding, Signal, Stopwatch, alike_throughout
from audiovae.synthesis import DEFAULT_POLISH_STEPS
from audiovae.timbre.moves import TimbreMove

COMPRESS, RESYNTHESIZE = "compress", "resynthesize"
DEFAULT_QUALITY = 6
_WRITE_SAMPLES = 1 << 18


@dataclass(frozen=True)
class TransformSettings:
    """What is done to every file, the same for a whole batch.

    Attributes:
        products: Of `compress` and `resynthesize`.
        quality: Step of the model's scale, 1 (smallest) to 8 (best).
        kbps: Asked rate of each file in place of a quality, all channels, all bytes.
        max_bytes: Asked size of each file in place of a quality.
        format: Of the sound; None goes by the destination's suffix.
        move: What is done to the latents of the resynthesis.
        polish_steps: Griffin-Lim steps from the vocoder's phase; only the sound depends on them.
    """

    products: tuple[str, ...] = (RESYNTHESIZE,)
    quality: int = DEFAULT_QUALITY
    kbps: float | None = None
    max_bytes: int | None = None
    format: Literal["wav", "flac", "ogg"] | None = None
    move: TimbreMove | None = None
    polish_steps: int = DEFAULT_POLISH_STEPS

    def __post_init__(self) -> None:
        """Refuse a rate or a size that no file can have.

        Raises:
            ConfigError: If it is not above 0.
        """
        for name, value in (("kbps", self.kbps), ("max_bytes", self.max_bytes)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"expected {name} above 0, got {value}; leave it out or mend it")


Outputs = Mapping[str, Path]
"""Destination of each product."""


@dataclass(frozen=True)
class _Source:
    """What was read of a file."""

    info: AudioInfo
    content: Signal | Coded
    note: str = ""


class Transformer:
    """Runs units of work through one model. Safe to share between threads."""

    def __init__(self, model: Model, settings: TransformSettings) -> None:
        """Look up the quality, and refuse what the model cannot do.

        Raises:
            ConfigError: If the model has no such quality, or cannot compress.
            ModelMismatchError: If the move is to a timbre of another model, or the model's
                spectrogram has another grid than files have.
        """
        require_grid(model)
        if COMPRESS in settings.products and model.frequency_table is None:
            raise ConfigError(
                f"expected a model with the quantized or the vq bottleneck to compress with, got "
                f"{model.name} with '{model.config.bottleneck.kind}'; choose another model, "
                "or only resynthesize"
            )
        self._model, self._settings = model, settings
        move = settings.move
        if move is not None:
            move.target.require_model(model.id)
        # Where nothing moves, the way of the plain resynthesis is taken, bit for bit.
        moving = None if move is None or move.is_identity else move
        self._reconstructor = Reconstructor(model, moving, settings.polish_steps)
        self._spectrogram = model.config.spectrogram
        self._quality_lambda = quality_lambda(model, settings.quality)
        by_size = settings.kbps is not None or settings.max_bytes is not None
        self._asked_quality = 0 if by_size else settings.quality
        # By size: searched file by file. By quality: the same for all.
        self._search = LambdaSearch(model, self._reconstructor, settings.kbps, settings.max_bytes)

    def process_files(
        self, jobs: Sequence[tuple[Path, Outputs]]
    ) -> list[FileReport | AudioVAEError]:
        """Make every product of short files together; a bad one does not spoil the others.

        Args:
            jobs: Source, and destination of each product.

        Returns:
            The report, or the error, of each, in order.
        """
        results: dict[int, FileReport | AudioVAEError] = {}
        sources: dict[int, _Source] = {}
        watch = Stopwatch()
        for index, (source, _) in enumerate(jobs):
            try:
                sources[index] = self._read(source, watch)
            except AudioVAEError as error:
                results[index] = error
        codings, failed = self._codings(sources, watch)
        results |= failed
        sounds = self._sounds(list(codings.values()), watch)
        total = sum(one.decoded_frames for one in codings.values())
        for (index, coding), sound in zip(codings.items(), sounds, strict=True):
            # The stages before are shared by the pack: a file's part is its share of the frames.
            share = coding.decoded_frames / total
            own = Stopwatch({name: s * share for name, s in watch.seconds.items()})
            one, part = sources[index], Part(sound, coding.chunks)
            try:
                report = span_report(coding, own, one.content.log_lambda, one.note)
                results[index] = self._finish(jobs[index][1], one.info, [part], [report], own)
            except AudioVAEError as error:
                results[index] = error
        return [results[index] for index in range(len(jobs))]

    def process_span(
        self, source: Path, part: Path, first_chunk: int, last_chunk: int
    ) -> SpanReport:
        """Do chunks `[first_chunk, last_chunk)` of a long file, into a part file."""
        watch = Stopwatch()
        one = self._read(source, watch, (first_chunk, last_chunk))
        codings, failed = self._codings({0: one}, watch)
        for error in failed.values():
            raise error
        coding = codings[0]
        sound = self._sounds([coding], watch)[0]
        with watch.stage("write"):
            save_part(part, Part(sound, coding.chunks))
        return span_report(coding, watch, one.content.log_lambda, one.note)

    def assemble(
        self,
        source: Path,
        parts: Sequence[Path],
        reports: Sequence[SpanReport],
        outputs: Outputs,
    ) -> FileReport:
        """Join the parts of a file in order and write every product; deletes nothing."""
        watch = Stopwatch()
        info = probe_source(source)
        own = SpanReport(0, 0.0, 0.0, watch.seconds)
        return self._finish(outputs, info, _Parts(parts), [*reports, own], watch)

    def _read(self, source: Path, watch: Stopwatch, span: tuple[int, int] | None = None) -> _Source:
        """Read a run of a file's chunks, all by default."""
        if not is_compressed(source):
            with watch.stage("decode"):
                info, signal = read_signal(source, self._spectrogram, *(span or ()))
            with watch.stage("encode"):
                found = self._quality_lambda, ""
                log_lambda, note = found if self._asked_quality else self._search.find(source)
            return _Source(info, replace(signal, log_lambda=log_lambda), note)
        if self._settings.move is not None:
            raise BitstreamError(
                "expected audio to move the timbre of, got a compressed file; decode it first with "
                "audiovae decode"
            )
        with watch.stage("decode"), AvaeReader(source) as reader:
            sound = CompressedSound(reader, self._model, self._reconstructor)
            return _Source(
                info_of(reader.header), sound.coded(*(span or (0, sound.stretch.last_chunk)))
            )

    def _codings(
        self, sources: Mapping[int, _Source], watch: Stopwatch
    ) -> tuple[dict[int, Coding], dict[int, AudioVAEError]]:
        """Code the sounds and decode the compressed files, each together; and what failed."""
        signals = {i: s.content for i, s in sources.items() if isinstance(s.content, Signal)}
        coded = {i: s.content for i, s in sources.items() if isinstance(s.content, Coded)}
        made = self._reconstructor.code(list(signals.values()), watch)
        codings, failed = dict(zip(signals, made, strict=True)), dict[int, AudioVAEError]()
        try:
            made = self._reconstructor.decode(list(coded.values()), watch)
            return codings | dict(zip(coded, made, strict=True)), failed
        except DamagedChunkError:  # in one of them, which spoils no other
            for index, one in coded.items():
                try:
                    codings[index] = self._reconstructor.decode([one], watch)[0]
                except DamagedChunkError as error:
                    failed[index] = error
        return codings, failed

    def _sounds(self, codings: list[Coding], watch: Stopwatch) -> list[Waveform | None]:
        if RESYNTHESIZE not in self._settings.products:
            return [None] * len(codings)
        return list(self._reconstructor.sound(codings, watch))

    def _finish(
        self,
        outputs: Outputs,
        info: AudioInfo,
        parts: Iterable[Part],
        reports: Sequence[SpanReport],
        watch: Stopwatch,
    ) -> FileReport:
        """Write the products of a whole file from its parts."""
        kbps = None
        with watch.stage("write"):
            if COMPRESS in outputs:
                kbps = self._write_compressed(outputs[COMPRESS], info, parts, reports)
            if RESYNTHESIZE in outputs:
                self._write_sound(outputs[RESYNTHESIZE], info, parts)
        return file_report(info, reports, kbps)

    def _write_sound(self, destination: Path, info: AudioInfo, parts: Iterable[Part]) -> None:
        """Write the sound at the source's rate, exactly as long as the source."""
        rate = self._spectrogram.sample_rate
        resampler = StreamResampler(rate, info.sample_rate, info.num_channels)
        left = info.num_samples
        with AudioWriter(
            destination,
            sample_rate=info.sample_rate,
            num_channels=info.num_channels,
            bit_depth=info.bit_depth,
            format=self._settings.format,
        ) as writer:
            for block in _resampled(resampler, parts):
                writer.write(block[:, :left])
                left -= min(left, block.shape[1])

    def _write_compressed(
        self,
        destination: Path,
        info: AudioInfo,
        parts: Iterable[Part],
        reports: Sequence[SpanReport],
    ) -> float:
        """Write the compressed file; returns its true kbps."""
        spans = [report for report in reports if report.frames]
        if not spans:
            raise BitstreamError(
                "expected audio to compress, got a compressed file; decode it with "
                "audiovae decode, or in a folder with --do resynthesize"
            )
        channels = [report.channel_of for report in spans]
        header = file_header(
            self._model, info, alike_throughout(channels), spans[0].log_lambda, self._asked_quality
        )
        coded = ((c, part.chunks) for c, part in zip(channels, parts, strict=True))
        write_spans(destination, header, coded)
        return destination.stat().st_size * 8 / 1000 / info.duration_seconds


class _Parts:
    """The part files of a file, read one at a time, as often as they are walked."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[Part]:
        return (load_part(path) for path in self._paths)


def _resampled(resampler: StreamResampler, parts: Iterable[Part]) -> Iterable[Waveform]:
    for part in parts:
        assert part.sound is not None
        for start in range(0, part.sound.shape[1], _WRITE_SAMPLES):
            yield resampler.push(part.sound[:, start : start + _WRITE_SAMPLES])
    yield resampler.flush()
