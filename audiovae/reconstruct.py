"""Signals in memory through the VAE by chunks, and back to sound by windows.

Chunks and windows have fixed places and fixed shapes (`chunks.py`), so what comes out does not
depend on how the work was cut, on what else was in the batch, or on who did it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.chunks import (
    CHUNK_FRAMES,
    FrameRange,
    batch_rows,
    batches_by_shape,
    chunk_range,
    core_range,
    num_chunks,
    pad_frames,
    padded_frames,
    stitch,
)
from audiovae.config import SpectrogramConfig
from audiovae.latents import Conditions
from audiovae.spectrogram import log_mel_to_db, log_mel_window, num_frames
from audiovae.synthesis import synthesize

Waveform = NDArray[np.float32]
_CPU_BATCH_FRAMES = CHUNK_FRAMES
_GPU_BATCH_FRAMES = 64 * CHUNK_FRAMES
_GRIFFIN_LIM_CONTEXT_FRAMES = 64


@dataclass(frozen=True)
class Signal:
    """A run of chunks of one file, with the samples they need.

    Attributes:
        waveform: `[channel, sample]` at the model's rate, from sample `offset` on.
        offset: Place of the first sample in the file.
        num_samples: Length of the whole file at the model's rate.
        first_chunk: First chunk whose sound is wanted.
        last_chunk: One past the last.
    """

    waveform: Waveform
    offset: int
    num_samples: int
    first_chunk: int
    last_chunk: int

    @cached_property
    def channel_of(self) -> tuple[int, ...]:
        """For each channel the first one that is identical to it: that one alone is coded."""
        found: list[int] = []
        for index, channel in enumerate(self.waveform):
            same = (other for other in found if np.array_equal(self.waveform[other], channel))
            found.append(next(same, index))
        return tuple(found)

    def read(self, start: int, stop: int) -> Waveform:
        """Samples `[start, stop)` of the file, of the channels that are coded."""
        coded = sorted(set(self.channel_of))
        return np.ascontiguousarray(self.waveform[coded, start - self.offset : stop - self.offset])


@dataclass
class Reconstruction:
    """What became of a signal.

    Attributes:
        sound: `[channel, sample]` of the wanted chunks' cores at the model's rate.
        frames: Frames coded, all coded channels.
        bits: The model's own estimate of their code length.
        error_db: Sum over frames of the mean absolute log-mel difference.
    """

    sound: Waveform
    frames: int
    bits: float
    error_db: float


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


def samples_needed(
    first_chunk: int, last_chunk: int, num_samples: int, config: SpectrogramConfig
) -> tuple[int, int]:
    """Samples `[start, stop)` that chunks `[first_chunk, last_chunk)` are made from.

    One chunk more on each side, for the cross-fade and the vocoder's context.
    """
    frames = _frames_needed(first_chunk, last_chunk, num_frames(num_samples, config))
    margin = config.window_samples
    start = frames.start * config.hop_samples - margin
    return max(0, start), min(num_samples, frames.stop * config.hop_samples + margin)


@dataclass(frozen=True)
class _Row:
    """One chunk of one coded channel: what the VAE sees."""

    signal: int
    channel: int
    chunk: int
    log_mel: Tensor  # [mel, frame]


@dataclass(frozen=True)
class _Window:
    """A stretch of decoded log-mel, and which of its frames are kept as sound."""

    signal: int
    channel: int
    log_mel: Tensor  # [mel, frame]
    keep: FrameRange
    shape_frames: int


class Reconstructor:
    """Runs signals through one model under one condition. Safe to share between threads."""

    def __init__(self, model: Model, log_lambda: float | None, seed: int, device: str) -> None:
        """Move the model to `device`."""
        self.device = torch.device(device)
        self.spectrogram = model.config.spectrogram
        self._vae = model.vae.to(self.device)
        self._vocoder = None if model.vocoder is None else model.vocoder.to(self.device)
        self._log_lambda, self._seed = log_lambda, seed
        on_cpu = self.device.type == "cpu"
        self._batch_frames = _CPU_BATCH_FRAMES if on_cpu else _GPU_BATCH_FRAMES
        self._context = (
            _GRIFFIN_LIM_CONTEXT_FRAMES if self._vocoder is None else self._vocoder.context_frames()
        )

    @torch.inference_mode()
    def run(self, signals: Sequence[Signal], watch: Stopwatch) -> list[Reconstruction]:
        """Reconstruct signals together."""
        with watch.stage("mel"):
            rows = [row for i, signal in enumerate(signals) for row in self._rows(i, signal)]
        with watch.stage("encode"):
            decoded, results = self._code(rows, signals)
        with watch.stage("vocode"):
            windows = list(self._windows(rows, decoded, signals))
            pieces = self._vocode(windows)
        for index, (signal, result) in enumerate(zip(signals, results, strict=True)):
            own = [(w, p) for w, p in zip(windows, pieces, strict=True) if w.signal == index]
            result.sound = self._join(signal, own)
        return results

    def _rows(self, index: int, signal: Signal) -> Iterator[_Row]:
        config = self.spectrogram
        total = num_frames(signal.num_samples, config)
        needed = _frames_needed(signal.first_chunk, signal.last_chunk, total)
        log_mel = log_mel_window(signal.read, signal.num_samples, needed.start, needed.stop, config)
        for channel in range(log_mel.shape[0]):
            for chunk in _chunks_needed(signal.first_chunk, signal.last_chunk, total):
                frames = chunk_range(chunk, total)
                piece = log_mel[
                    channel, :, frames.start - needed.start : frames.stop - needed.start
                ]
                yield _Row(index, channel, chunk, piece)

    def _code(
        self, rows: list[_Row], signals: Sequence[Signal]
    ) -> tuple[list[Tensor], list[Reconstruction]]:
        """Decoded log-mel `[mel, frame]` of each row, and the figures of each signal."""
        results = [Reconstruction(np.zeros((0, 0), np.float32), 0, 0.0, 0.0) for _ in signals]
        decoded: dict[int, Tensor] = {}
        shapes = [padded_frames(row.log_mel.shape[1]) for row in rows]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            batch = [rows[i].log_mel for i in indices]
            log_mel, lengths = self._batch(batch, shape)
            given = None
            if self._log_lambda is not None:
                given = torch.full((len(lengths),), self._log_lambda, device=self.device)
            output = self._vae.encode(log_mel, lengths, Conditions(given))
            bits = output.level_bits().sum(dim=1)
            for place, i in enumerate(indices):
                row, length = rows[i], rows[i].log_mel.shape[1]
                decoded[i] = output.log_mel[place, :, :length].cpu()
                signal = signals[row.signal]
                if signal.first_chunk <= row.chunk < signal.last_chunk:
                    error = log_mel_to_db((decoded[i] - row.log_mel).abs()).mean()
                    result = results[row.signal]
                    result.frames += length
                    result.bits += float(bits[place])
                    result.error_db += float(error) * length
        return [decoded[i] for i in range(len(rows))], results

    def _windows(
        self, rows: list[_Row], decoded: list[Tensor], signals: Sequence[Signal]
    ) -> Iterator[_Window]:
        by_channel: dict[tuple[int, int], list[int]] = {}
        for i, row in enumerate(rows):
            by_channel.setdefault((row.signal, row.channel), []).append(i)
        for (index, channel), members in by_channel.items():
            signal = signals[index]
            total = num_frames(signal.num_samples, self.spectrogram)
            first = rows[members[0]].chunk
            whole = stitch([decoded[i] for i in members], first, total)
            base = chunk_range(first, total).start
            for chunk in range(signal.first_chunk, signal.last_chunk):
                core = core_range(chunk, total)
                start, stop = (
                    max(0, core.start - self._context),
                    min(total, core.stop + self._context),
                )
                shape = (
                    padded_frames(total)
                    if num_chunks(total) == 1
                    else CHUNK_FRAMES + 2 * self._context
                )
                yield _Window(
                    index,
                    channel,
                    whole[:, start - base : stop - base],
                    FrameRange(core.start - start, core.stop - start),
                    shape,
                )

    def _vocode(self, windows: list[_Window]) -> list[Waveform]:
        hop = self.spectrogram.hop_samples
        pieces: dict[int, Waveform] = {}
        shapes = [window.shape_frames for window in windows]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            log_mel, lengths = self._batch([windows[i].log_mel for i in indices], shape)
            sound = synthesize(log_mel, lengths, self._vocoder, self._seed).cpu().numpy()
            for place, i in enumerate(indices):
                keep = windows[i].keep
                pieces[i] = sound[place, keep.start * hop : keep.stop * hop]
        return [pieces[i] for i in range(len(windows))]

    def _batch(self, log_mels: list[Tensor], shape: int) -> tuple[Tensor, Tensor]:
        """Rows padded to one shape and one number: `[batch, mel, frame]` and `[batch]`."""
        lengths = [log_mel.shape[1] for log_mel in log_mels]
        missing = batch_rows(shape, self._batch_frames) - len(log_mels)
        padded = torch.stack([pad_frames(log_mel, shape) for log_mel in log_mels])
        padded = torch.nn.functional.pad(padded, (0, 0, 0, 0, 0, missing))
        counts = torch.tensor(lengths + [1] * missing, device=self.device)
        return padded.to(self.device), counts

    def _join(self, signal: Signal, own: list[tuple[_Window, Waveform]]) -> Waveform:
        """Pieces in order of their chunks, channels in order, cut at the file's end."""
        coded = sorted(set(signal.channel_of))
        channels = [
            np.concatenate([piece for window, piece in own if window.channel == place])
            for place in range(len(coded))
        ]
        total = num_frames(signal.num_samples, self.spectrogram)
        start = core_range(signal.first_chunk, total).start * self.spectrogram.hop_samples
        sound = np.stack([channels[coded.index(channel)] for channel in signal.channel_of])
        return sound[:, : signal.num_samples - start]


def _chunks_needed(first_chunk: int, last_chunk: int, total_frames: int) -> range:
    return range(max(0, first_chunk - 1), min(last_chunk + 1, num_chunks(total_frames)))


def _frames_needed(first_chunk: int, last_chunk: int, total_frames: int) -> FrameRange:
    chunks = _chunks_needed(first_chunk, last_chunk, total_frames)
    return FrameRange(
        chunk_range(chunks[0], total_frames).start, chunk_range(chunks[-1], total_frames).stop
    )
