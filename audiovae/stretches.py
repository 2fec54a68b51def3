"""Stretches of files: what a unit of work is given, and what it hands on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.audio import Waveform
from audiovae.chunks import FrameRange, chunk_range, num_chunks, stitch
from audiovae.codec import CodedChunk
from audiovae.coherence import Angles, angles_of_frames, measure_angles
from audiovae.config import SpectrogramConfig
from audiovae.gains import NUM_BANDS
from audiovae.spectrogram import ReadSamples, log_mel_window, num_frames

SPAN_CHUNKS = 8
"""Chunks of one span: 92 s, so that a 10-hour file costs no more memory than a short one."""

_BLOCK_SAMPLES = 4096  # 93 ms
_BLOCK_SHARE = 1e-2  # 20 dB below the weaker channel, in every block,
_WHOLE_SHARE = 1e-3  # and 30 dB in the whole; mono music as Vorbis has 25 and 42
_INAUDIBLE_POWER = 1e-8  # -80 dBFS


@dataclass(frozen=True)
class Stretch:
    """A run of chunks of one file.

    Attributes:
        num_samples: Length of the whole file at the model's rate.
        first_chunk: First chunk that is wanted.
        last_chunk: One past the last.
    """

    num_samples: int
    first_chunk: int
    last_chunk: int

    @classmethod
    def whole(cls, num_samples: int, config: SpectrogramConfig) -> Stretch:
        """All chunks of a file."""
        return cls(num_samples, 0, num_chunks(num_frames(num_samples, config)))

    def frames(self, config: SpectrogramConfig) -> int:
        """Mel frames of the whole file."""
        return num_frames(self.num_samples, config)

    def chunks_needed(self, config: SpectrogramConfig) -> range:
        """The wanted chunks and one more on each side, for cross-fade and context."""
        total = num_chunks(self.frames(config))
        return range(max(0, self.first_chunk - 1), min(self.last_chunk + 1, total))

    def frames_needed(self, config: SpectrogramConfig) -> FrameRange:
        """Frames of the chunks needed."""
        needed, total = self.chunks_needed(config), self.frames(config)
        return FrameRange(chunk_range(needed[0], total).start, chunk_range(needed[-1], total).stop)

    def samples_needed(self, config: SpectrogramConfig) -> tuple[int, int]:
        """Samples `[start, stop)` that the chunks needed are made from."""
        frames, hop = self.frames_needed(config), config.hop_samples
        margin = config.window_samples
        return max(0, frames.start * hop - margin), min(
            self.num_samples, frames.stop * hop + margin
        )


class Codable(Protocol):
    """What can be coded: a stretch of a file, as log-mel."""

    @property
    def stretch(self) -> Stretch:
        """Which chunks are wanted."""

    @property
    def config(self) -> SpectrogramConfig:
        """Frames of the log-mel."""

    @property
    def log_lambda(self) -> float | None:
        """Condition it is coded under; None for a model without."""

    @property
    def sources(self) -> Mapping[int, tuple[int, ...]]:
        """In each chunk needed, for each channel the channel that is coded for it there."""

    @property
    def angles(self) -> Mapping[int, Mapping[int, Angles | None]]:
        """In each chunk needed, the angles of each channel that is coded there; None in phase."""

    def log_mel(self) -> Tensor:
        """`[channel, mel, frame]` of the chunks needed, of the channels that are coded."""


@dataclass(frozen=True)
class Signal:
    """A stretch of a file with the samples it needs.

    Attributes:
        stretch: Which chunks are wanted.
        waveform: `[channel, sample]` at the model's rate, from sample `offset` on.
        config: Of the model.
        offset: Place of the first sample in the file.
        log_lambda: Condition it is coded under; None for a model without.
    """

    stretch: Stretch
    waveform: Waveform
    config: SpectrogramConfig
    offset: int = 0
    log_lambda: float | None = None

    @cached_property
    def sources(self) -> Mapping[int, tuple[int, ...]]:
        """In each chunk, for each channel the first one that sounds the same: it alone is coded.

        What is judged is the chunk alone, so that it is the same however a file is cut into spans.
        """
        needed = self.stretch.chunks_needed(self.config)
        return {chunk: self.sources_in(chunk) for chunk in needed}

    @cached_property
    def angles(self) -> Mapping[int, Mapping[int, Angles | None]]:
        """In each chunk, the angles of each channel that is coded there; None in phase."""
        needed = self.stretch.chunks_needed(self.config)
        return {chunk: self.angles_in(chunk, self.sources[chunk]) for chunk in needed}

    def angles_in(self, chunk: int, sources: tuple[int, ...]) -> Mapping[int, Angles | None]:
        """The same of one chunk, of which the sources are known."""
        frames = len(chunk_range(chunk, self.stretch.frames(self.config)))
        here = torch.from_numpy(self._samples_of(chunk))
        found: dict[int, Angles | None] = {0: None}
        for channel in sorted(set(sources) - {0}):
            angles = measure_angles(here[0], here[channel], frames, self.config)
            found[channel] = angles if angles.any() else None
        return found

    def _samples_of(self, chunk: int) -> Waveform:
        """`[channel, sample]` of a chunk, without the margins that its windows reach into."""
        frames = chunk_range(chunk, self.stretch.frames(self.config))
        start, stop = (at * self.config.hop_samples for at in (frames.start, frames.stop))
        return self.waveform[:, start - self.offset : stop - self.offset]

    def sources_in(self, chunk: int) -> tuple[int, ...]:
        """For each channel the first one that sounds the same in a chunk."""
        here = self._samples_of(chunk)
        found: list[int] = []
        for index, channel in enumerate(here):
            same = (other for other in found if _sounds_the_same(here[other], channel))
            found.append(next(same, index))
        return tuple(found)

    def log_mel(self) -> Tensor:
        """`[channel, mel, frame]` of the chunks needed, of the channels that are coded."""
        frames = self.stretch.frames_needed(self.config)
        read = held_samples(self.waveform[coded_channels(self)], self.offset)
        return log_mel_window(
            read, self.stretch.num_samples, frames.start, frames.stop, self.config
        )


def held_samples(waveform: Waveform, offset: int) -> ReadSamples:
    """Reads a file by range where part of it is at hand: `waveform`, from sample `offset` on."""
    return lambda start, stop: np.ascontiguousarray(waveform[:, start - offset : stop - offset])


def angles_at(signal: Codable, channel: int, chunk: int) -> Angles | None:
    """Angles of what is coded for a channel in a chunk; None in phase."""
    return signal.angles[chunk][signal.sources[chunk][channel]]


def stitched_angles(signal: Codable) -> tuple[Tensor | None, ...]:
    """Angles of the coded channels, as a `Coding` has them."""
    needed = signal.stretch.chunks_needed(signal.config)
    total = signal.stretch.frames(signal.config)
    return tuple(
        stitch_angles([angles_at(signal, channel, i) for i in needed], needed[0], total)
        for channel in coded_channels(signal)
    )


def stitch_angles(
    by_chunk: Sequence[Angles | None], first_chunk: int, num_frames: int
) -> Tensor | None:
    """Angles of the neighbouring chunks of a channel as those of its frames.

    Args:
        by_chunk: Of the chunks `first_chunk, first_chunk + 1, ...`; None in phase.
        first_chunk: Index of the first one.
        num_frames: Length of the whole file.

    Returns:
        `[band, frame]`, radians; None if the channel is in phase in all of them.
    """
    if all(angles is None for angles in by_chunk):
        return None
    parts = []
    for index, angles in enumerate(by_chunk, start=first_chunk):
        frames = len(chunk_range(index, num_frames))
        none = torch.zeros(NUM_BANDS, frames)
        parts.append(none if angles is None else angles_of_frames(angles, frames))
    return stitch(parts, first_chunk, num_frames)


def channel_of(signal: Codable) -> tuple[int, ...]:
    """For each channel the channel that is coded for it: the same in every chunk."""
    return alike_throughout(list(signal.sources.values()))


def coded_channels(signal: Codable) -> list[int]:
    """The channels that are coded, in order."""
    return sorted(set(channel_of(signal)))


def alike_throughout(sources: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """For each channel the first one with the same source in every part of a file."""
    histories = list(zip(*sources, strict=True))
    return tuple(histories.index(history) for history in histories)


def _sounds_the_same(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether two channels differ by no more than a lossy codec makes of one sound in both.

    Coded apart, they would cost twice as much, and differ more than they did: each gets a phase
    of its own, so that what was in the middle spreads.
    """
    if np.array_equal(first, second):
        return True
    blocks = range(0, len(first), _BLOCK_SAMPLES)
    difference = np.add.reduceat(np.square(first - second, dtype=np.float64), blocks)
    weaker = np.minimum(
        *(np.add.reduceat(np.square(one, dtype=np.float64), blocks) for one in (first, second))
    )
    near = difference <= np.maximum(_BLOCK_SHARE * weaker, _INAUDIBLE_POWER * _BLOCK_SAMPLES)
    return bool(near.all() and difference.sum() <= _WHOLE_SHARE * weaker.sum())


@dataclass(frozen=True)
class Coded:
    """A stretch of a file as a compressed file holds it.

    Attributes:
        stretch: Which chunks are wanted.
        channel_of: For each channel the channel that is stored for it.
        chunks: By `(channel, chunk)`, all that the stretch needs of every stored channel; None
            for one that is lost and becomes silence.
        log_lambda: Condition they were coded under.
    """

    stretch: Stretch
    channel_of: tuple[int, ...]
    chunks: Mapping[tuple[int, int], CodedChunk | None]
    log_lambda: float | None


@dataclass(frozen=True)
class Coding:
    """A stretch of a file as the decoder will have it.

    Attributes:
        stretch: Which chunks are wanted.
        channel_of: For each channel the channel that is coded for it.
        log_mels: For each coded channel the decoded, stitched log-mel `[mel, frame]` of the
            chunks needed.
        angles: For each coded channel `[band, frame]`, radians, of the same frames; None for one
            in phase with the first channel. Empty: all are.
        chunks: The wanted chunks, chunk by chunk and within a chunk by coded channel; empty for
            a model that makes no symbols.
        frames: Frames of the wanted chunks, all coded channels; 0 where there is nothing to say of
            bits and error: what was coded before, and timbres.
        bits: The model's own estimate of their code length.
        error_db: Sum over these frames of the mean absolute log-mel difference.
    """

    stretch: Stretch
    channel_of: tuple[int, ...]
    log_mels: tuple[Tensor, ...]
    angles: tuple[Tensor | None, ...] = ()
    chunks: tuple[CodedChunk, ...] = ()
    frames: int = 0
    bits: float = 0.0
    error_db: float = 0.0

    @property
    def decoded_frames(self) -> int:
        """Frames of the decoded log-mels: the work that this coding was."""
        return sum(log_mel.shape[1] for log_mel in self.log_mels)


@dataclass
class Stopwatch:
    """Wall time by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
