"""Signals in memory to coded chunks, and coded chunks to sound.

Chunks and windows have fixed places and fixed shapes (`chunks.py`), so what comes out does not
depend on how the work was cut, on what else was in the batch, or on who did it. Sound is always
made from the coded symbols, so a resynthesis is the decode of the compressed file, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
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
from audiovae.codec import CodedChunk, decode_chunks, encode_chunks
from audiovae.latents import Conditions
from audiovae.spectrogram import log_mel_to_db, log_mel_window
from audiovae.stretches import Coding, Signal, Stopwatch, Stretch, Waveform
from audiovae.synthesis import context_frames, synthesize

_CPU_BATCH_FRAMES = CHUNK_FRAMES
_GPU_BATCH_FRAMES = 64 * CHUNK_FRAMES


@dataclass(frozen=True)
class _Row:
    """One chunk of one coded channel: what the VAE sees."""

    signal: int
    channel: int
    chunk: int
    log_mel: Tensor  # [mel, frame]


@dataclass(frozen=True)
class _CodedRow:
    """What became of a row."""

    log_mel: Tensor  # [mel, frame]
    bits: float
    chunk: CodedChunk | None


@dataclass(frozen=True)
class _Window:
    """A stretch of decoded log-mel, and which of its frames are kept as sound."""

    coding: int
    channel: int
    log_mel: Tensor  # [mel, frame]
    keep: FrameRange
    shape_frames: int


class Reconstructor:
    """Runs signals through one model. Safe to share between threads."""

    def __init__(self, model: Model, seed: int = 0, device: str = "cpu") -> None:
        """Move the model to `device`; `seed` is that of Griffin-Lim, where it is used."""
        self.device = torch.device(device)
        self.spectrogram = model.config.spectrogram
        model.vae.to(self.device)
        self._model = model
        self._vocoder = None if model.vocoder is None else model.vocoder.to(self.device)
        self._seed = seed
        on_cpu = self.device.type == "cpu"
        self._batch_frames = _CPU_BATCH_FRAMES if on_cpu else _GPU_BATCH_FRAMES
        self._context = context_frames(self._vocoder)

    @torch.inference_mode()
    def code(self, signals: Sequence[Signal], watch: Stopwatch) -> list[Coding]:
        """Code signals together, and decode the log-mel of their codes."""
        with watch.stage("mel"):
            rows = [row for i, signal in enumerate(signals) for row in self._rows(i, signal)]
        with watch.stage("encode"):
            coded = self._code_rows(rows, signals)
            return [
                self._coding(
                    signal, [(r, c) for r, c in zip(rows, coded, strict=True) if r.signal == i]
                )
                for i, signal in enumerate(signals)
            ]

    @torch.inference_mode()
    def decode(
        self,
        stretch: Stretch,
        channel_of: tuple[int, ...],
        chunks: dict[tuple[int, int], CodedChunk | None],
        log_lambda: float | None,
        watch: Stopwatch,
    ) -> Coding:
        """Decode the log-mel of chunks read from a file.

        Args:
            stretch: Which chunks are wanted.
            channel_of: For each channel the channel that is stored for it.
            chunks: By `(channel, chunk)`, all that `stretch` needs of every stored channel; None
                for one that is lost and becomes silence.
            log_lambda: Condition they were coded under.
            watch: Takes the time.

        Raises:
            DamagedChunkError: If a chunk's symbols are not those that were coded.
        """
        order = sorted(set(channel_of))
        needed = stretch.chunks_needed(self.spectrogram)
        places = [(channel, chunk) for channel in order for chunk in needed]
        total = stretch.frames(self.spectrogram)
        with watch.stage("encode"):
            present = {place: chunk for place in places if (chunk := chunks[place])}
            log_mels = self._decode_rows(list(present.values()), log_lambda)
            decoded = dict(zip(present, log_mels, strict=True))
            for channel, index in set(places) - set(present):
                shape = (self.spectrogram.num_mels, len(chunk_range(index, total)))
                decoded[channel, index] = torch.full(shape, self.spectrogram.log_floor)
            stitched = tuple(
                stitch([decoded[channel, chunk] for chunk in needed], needed[0], total)
                for channel in order
            )
        return Coding(stretch, channel_of, stitched)

    @torch.inference_mode()
    def sound(self, codings: Sequence[Coding], watch: Stopwatch) -> list[Waveform]:
        """Sound `[channel, sample]` of each coding's wanted chunks, at the model's rate."""
        with watch.stage("vocode"):
            windows = [w for i, coding in enumerate(codings) for w in self._windows(i, coding)]
            pieces = self._vocode(windows)
            return [
                self._join(
                    coding, [(w, p) for w, p in zip(windows, pieces, strict=True) if w.coding == i]
                )
                for i, coding in enumerate(codings)
            ]

    @torch.inference_mode()
    def payload_bytes(self, log_mels: Sequence[Tensor], log_lambda: float) -> list[int]:
        """Bytes of each chunk's payload under a lambda; `log_mels` are `[mel, frame]`."""
        sizes: dict[int, int] = {}
        shapes = [padded_frames(log_mel.shape[1]) for log_mel in log_mels]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            log_mel, lengths = self._batch([log_mels[i] for i in indices], shape)
            conditions = self._conditions([log_lambda], len(lengths))
            made = encode_chunks(self._model, log_mel, lengths, conditions)
            sizes |= {i: len(chunk.payload) for i, chunk in zip(indices, made, strict=False)}
        return [sizes[i] for i in range(len(log_mels))]

    def _rows(self, index: int, signal: Signal) -> Iterator[_Row]:
        stretch, config = signal.stretch, self.spectrogram
        needed, total = stretch.frames_needed(config), stretch.frames(config)
        log_mel = log_mel_window(
            signal.read, stretch.num_samples, needed.start, needed.stop, config
        )
        for channel in range(log_mel.shape[0]):
            for chunk in stretch.chunks_needed(config):
                frames = chunk_range(chunk, total)
                start, stop = frames.start - needed.start, frames.stop - needed.start
                yield _Row(index, channel, chunk, log_mel[channel, :, start:stop])

    def _code_rows(self, rows: list[_Row], signals: Sequence[Signal]) -> list[_CodedRow]:
        coded: dict[int, _CodedRow] = {}
        shapes = [padded_frames(row.log_mel.shape[1]) for row in rows]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            log_mel, lengths = self._batch([rows[i].log_mel for i in indices], shape)
            conditions = self._conditions(
                [signals[rows[i].signal].log_lambda for i in indices], len(lengths)
            )
            for i, one in zip(
                indices, self._code_batch(log_mel, lengths, conditions), strict=False
            ):
                channel = sorted(set(signals[rows[i].signal].channel_of))[rows[i].channel]
                chunk = one.chunk and replace(one.chunk, channel=channel, index=rows[i].chunk)
                coded[i] = replace(one, chunk=chunk)
        return [coded[i] for i in range(len(rows))]

    def _code_batch(
        self, log_mel: Tensor, lengths: Tensor, conditions: Conditions
    ) -> list[_CodedRow]:
        """Code padded rows and decode what was coded."""
        frames = lengths.tolist()
        if self._model.frequency_table is None:  # no symbols: what the decoder gets is the latents
            output = self._model.vae.encode(log_mel, lengths, conditions)
            decoded, bits = output.log_mel, output.level_bits().sum(dim=1).tolist()
            chunks: list[CodedChunk | None] = [None] * len(frames)
        else:
            made = encode_chunks(self._model, log_mel, lengths, conditions)
            decoded = decode_chunks(self._model, made, log_mel.shape[2], conditions)
            bits = [sum(chunk.level_bits) for chunk in made]
            chunks = list(made)
        rows = decoded.cpu()
        return [_CodedRow(rows[i, :, : frames[i]], bits[i], chunks[i]) for i in range(len(frames))]

    def _decode_rows(self, chunks: list[CodedChunk], log_lambda: float | None) -> list[Tensor]:
        decoded: dict[int, Tensor] = {}
        shapes = [padded_frames(chunk.num_frames) for chunk in chunks]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            rows = [chunks[i] for i in indices]
            # Rows to fill the fixed shape repeat the last one.
            rows += [rows[-1]] * (batch_rows(shape, self._batch_frames) - len(rows))
            conditions = self._conditions([log_lambda] * len(rows), len(rows))
            log_mel = decode_chunks(self._model, rows, shape, conditions).cpu()
            for place, i in enumerate(indices):
                decoded[i] = log_mel[place, :, : chunks[i].num_frames]
        return [decoded[i] for i in range(len(chunks))]

    def _conditions(self, log_lambdas: Sequence[float | None], rows: int) -> Conditions:
        given = [value for value in log_lambdas if value is not None]
        if not given:
            return Conditions()
        filled = given + [given[-1]] * (rows - len(given))
        return Conditions(torch.tensor(filled, dtype=torch.float32, device=self.device))

    def _coding(self, signal: Signal, own: list[tuple[_Row, _CodedRow]]) -> Coding:
        stretch = signal.stretch
        total = stretch.frames(self.spectrogram)
        first = stretch.chunks_needed(self.spectrogram)[0]
        channels = range(len(set(signal.channel_of)))
        log_mels = tuple(
            stitch([c.log_mel for r, c in own if r.channel == channel], first, total)
            for channel in channels
        )
        wanted = [(r, c) for r, c in own if stretch.first_chunk <= r.chunk < stretch.last_chunk]
        wanted.sort(key=lambda pair: (pair[0].chunk, pair[0].channel))
        errors = [
            float(log_mel_to_db((c.log_mel - r.log_mel).abs()).mean()) * r.log_mel.shape[1]
            for r, c in wanted
        ]
        return Coding(
            stretch,
            signal.channel_of,
            log_mels,
            tuple(c.chunk for _, c in wanted if c.chunk is not None),
            sum(r.log_mel.shape[1] for r, _ in wanted),
            sum(c.bits for _, c in wanted),
            sum(errors),
        )

    def _windows(self, index: int, coding: Coding) -> Iterator[_Window]:
        stretch, config = coding.stretch, self.spectrogram
        total = stretch.frames(config)
        base = stretch.frames_needed(config).start
        alone = num_chunks(total) == 1
        shape = padded_frames(total) if alone else CHUNK_FRAMES + 2 * self._context
        for channel, log_mel in enumerate(coding.log_mels):
            for chunk in range(stretch.first_chunk, stretch.last_chunk):
                core = core_range(chunk, total)
                start = max(0, core.start - self._context)
                stop = min(total, core.stop + self._context)
                keep = FrameRange(core.start - start, core.stop - start)
                yield _Window(index, channel, log_mel[:, start - base : stop - base], keep, shape)

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

    def _join(self, coding: Coding, own: list[tuple[_Window, Waveform]]) -> Waveform:
        """Pieces in order of their chunks, channels in order, cut at the file's end."""
        stretch = coding.stretch
        coded = sorted(set(coding.channel_of))
        channels = [
            np.concatenate([piece for window, piece in own if window.channel == place])
            for place in range(len(coded))
        ]
        core = core_range(stretch.first_chunk, stretch.frames(self.spectrogram))
        start = core.start * self.spectrogram.hop_samples
        sound = np.stack([channels[coded.index(channel)] for channel in coding.channel_of])
        return sound[:, : stretch.num_samples - start]
