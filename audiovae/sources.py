"""What a unit of work reads: an audio file, or a compressed one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiovae.audio import (
    AudioInfo,
    AudioReader,
    ResampledReader,
    Waveform,
    is_compressed,
    probe_audio,
)
from audiovae.audio.resample import resampled_length
from audiovae.checkpoint import Model
from audiovae.chunks import STEP_FRAMES, num_chunks
from audiovae.codec import AvaeHeader, AvaeReader, CodedChunk, DamagedChunkError
from audiovae.config import SpectrogramConfig
from audiovae.reconstruct import Reconstructor
from audiovae.spectrogram import num_frames
from audiovae.stretches import SPAN_CHUNKS, Coded, Coding, Signal, Stopwatch, Stretch


def probe_source(path: Path) -> AudioInfo:
    """Facts of an audio file, or of the audio in a compressed one.

    Raises:
        AudioReadError: If the audio file cannot be read.
        BitstreamError: If the compressed file is damaged.
    """
    if not is_compressed(path):
        return probe_audio(path)
    with AvaeReader(path) as reader:
        return info_of(reader.header)


def info_of(header: AvaeHeader) -> AudioInfo:
    """The audio that a compressed file holds, as facts of an audio file."""
    return AudioInfo(
        sample_rate=header.sample_rate,
        num_channels=header.num_channels,
        num_samples=header.num_samples,
        container="avae",
        encoding="AVAE",
        bit_depth=header.bit_depth,
        reader="soundfile",
    )


def plan_spans(info: AudioInfo) -> tuple[tuple[int, int], ...]:
    """Runs of chunks `[first, last)` in which a file is done; one if it is short."""
    config = SpectrogramConfig()
    samples = resampled_length(info.num_samples, info.sample_rate, config.sample_rate)
    total = num_chunks(num_frames(samples, config))
    return tuple((i, min(i + SPAN_CHUNKS, total)) for i in range(0, total, SPAN_CHUNKS))


def read_signal(
    path: Path, config: SpectrogramConfig, first_chunk: int = 0, last_chunk: int | None = None
) -> tuple[AudioInfo, Signal]:
    """Read the samples that a run of chunks needs, at the model's rate; all chunks by default.

    Raises:
        AudioReadError: If the file cannot be read.
    """
    with AudioReader(path) as raw, ResampledReader(raw, config.sample_rate) as reader:
        stretch = Stretch.whole(reader.num_samples, config)
        if last_chunk is not None:
            stretch = Stretch(reader.num_samples, first_chunk, last_chunk)
        start, stop = stretch.samples_needed(config)
        return raw.info, Signal(stretch, reader.read(start, stop), config, start)


class CompressedSound:
    """A compressed file as audio at the model's rate, decoded where it is read.

    Memory is that of one span, whatever the file's length.

    Args:
        reader: The open file.
        model: The one that wrote it.
        reconstructor: Of that model.
        salvage: Lost chunks become silence instead of an error.

    Attributes:
        lost_seconds: Time ranges that salvage replaced by silence.

    Raises:
        ModelMismatchError: If another model wrote the file.
    """

    def __init__(
        self,
        reader: AvaeReader,
        model: Model,
        reconstructor: Reconstructor,
        salvage: bool = False,
    ) -> None:
        reader.require_model(model)
        self._reader, self._reconstructor = reader, reconstructor
        self._config = model.config.spectrogram
        self._salvage = salvage
        self.lost_seconds: set[tuple[float, float]] = set()
        header = reader.header
        samples = resampled_length(header.num_samples, header.sample_rate, self._config.sample_rate)
        self.stretch = Stretch.whole(samples, self._config)
        self._held: tuple[int, Waveform] | None = None

    @property
    def info(self) -> AudioInfo:
        """Facts at the model's rate."""
        return replace(
            info_of(self._reader.header),
            sample_rate=self._config.sample_rate,
            num_samples=self.stretch.num_samples,
        )

    def coded(self, first_chunk: int, last_chunk: int) -> Coded:
        """Read a run of chunks, and those that their sound needs besides.

        Raises:
            DamagedChunkError: If a chunk is damaged and salvage is off.
        """
        header = self._reader.header
        stretch = Stretch(self.stretch.num_samples, first_chunk, last_chunk)
        chunks = {
            (channel, index): self._chunk(channel, index)
            for channel in header.coded_channels
            for index in stretch.chunks_needed(self._config)
        }
        sources = tuple(header.source_of(channel) for channel in range(header.num_channels))
        return Coded(stretch, sources, chunks, header.log_lambda)

    def coding(self, first_chunk: int, last_chunk: int, watch: Stopwatch) -> Coding:
        """Decode the log-mel of a run of chunks.

        Raises:
            DamagedChunkError: If a chunk is damaged and salvage is off.
        """
        coded = self.coded(first_chunk, last_chunk)
        while True:
            try:
                return self._reconstructor.decode([coded], watch)[0]
            except DamagedChunkError as error:
                self._lose(error)
                chunks = {**coded.chunks, (error.channel, error.index): None}
                coded = replace(coded, chunks=chunks)

    def read(self, start: int, stop: int) -> Waveform:
        """Samples `[start, stop)` at the model's rate."""
        step = self._config.hop_samples * STEP_FRAMES
        pieces = []
        at = start
        while at < stop:
            last = self.stretch.last_chunk
            span = min(at // step, last - 1) // SPAN_CHUNKS
            origin, sound = self._span(span)
            end = min(stop, origin + sound.shape[1])
            pieces.append(sound[:, at - origin : end - origin])
            at = end
        return np.concatenate(pieces, axis=1)

    def _span(self, index: int) -> tuple[int, Waveform]:
        first = index * SPAN_CHUNKS
        if self._held is None or self._held[0] != first:
            last = min(first + SPAN_CHUNKS, self.stretch.last_chunk)
            watch = Stopwatch()
            coding = self.coding(first, last, watch)
            self._held = (first, self._reconstructor.sound([coding], watch)[0])
        return first * STEP_FRAMES * self._config.hop_samples, self._held[1]

    def _chunk(self, channel: int, index: int) -> CodedChunk | None:
        try:
            return self._reader.read_chunk(channel, index)
        except DamagedChunkError as error:
            self._lose(error)
            return None

    def _lose(self, error: DamagedChunkError) -> None:
        """Note a lost chunk, or give up if losses are not allowed."""
        if not self._salvage:
            raise error
        self.lost_seconds.add((error.start_seconds, error.stop_seconds))


def merged_ranges(ranges: Collection[tuple[float, float]]) -> list[tuple[float, float]]:
    """Overlapping time ranges joined, in order."""
    merged: list[tuple[float, float]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
