"""Signals in memory to coded chunks, and coded chunks to sound.

Chunks and windows have fixed places and fixed shapes (`chunks.py`), so what comes out does not
depend on how the work was cut, on what else was in the batch, or on who did it. Sound is always
made from the coded symbols, so a resynthesis is the decode of the compressed file, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from audiovae.audio import Waveform
from audiovae.checkpoint import Model
from audiovae.chunks import (
    BATCH_FRAMES,
    CHUNK_FRAMES,
    FrameRange,
    batch_rows,
    batches_by_shape,
    chunk_range,
    core_range,
    num_chunks,
    padded_frames,
    stitch,
)
from audiovae.codec import CodedChunk, decode_chunks, encode_chunks
from audiovae.coherence import Angles
from audiovae.latents import Conditions
from audiovae.limiter import REACH_SAMPLES, limit_peaks
from audiovae.rows import (
    CodedRow,
    Row,
    Window,
    chunk_rows,
    quality_conditions,
    stack_angles,
    stack_rows,
)
from audiovae.spectrogram import log_mel_to_db
from audiovae.stretches import (
    Codable,
    Coded,
    Coding,
    Stopwatch,
    angles_at,
    channel_of,
    coded_channels,
    stitch_angles,
    stitched_angles,
)
from audiovae.synthesis import DEFAULT_POLISH_STEPS, Synthesizer
from audiovae.timbre.detail import detailed, with_detail
from audiovae.timbre.moves import Move

_GPU_BATCH_FRAMES = 16 * CHUNK_FRAMES  # 190 s: a unit of work fills one, and not many more


class Reconstructor:
    """Runs signals through one model. Safe to share between threads."""

    def __init__(
        self,
        model: Model,
        move: Move | None = None,
        polish_steps: int = DEFAULT_POLISH_STEPS,
    ) -> None:
        """Work where the model is.

        Args:
            model: From `load_model`.
            move: What is done to the latents of every chunk before they are decoded.
            polish_steps: Griffin-Lim steps from the vocoder's phase.
        """
        self.device = model.device
        self.spectrogram = model.config.spectrogram
        self._model = model
        self._synthesizer = Synthesizer(model.vocoder, polish_steps)
        self._reach_frames = -(-REACH_SAMPLES // self.spectrogram.hop_samples)
        self._move = move
        on_cpu = self.device.type == "cpu"
        self._batch_frames = BATCH_FRAMES if on_cpu else _GPU_BATCH_FRAMES
        # On a CPU each window is sounded alone, at its own length.
        self._sound_batch_frames = 1 if on_cpu else _GPU_BATCH_FRAMES

    @torch.inference_mode()
    def code(self, signals: Sequence[Codable], watch: Stopwatch) -> list[Coding]:
        """Code signals together, and decode the log-mel of their codes."""
        with watch.stage("mel"):
            rows = [row for i, signal in enumerate(signals) for row in chunk_rows(i, signal)]
        with watch.stage("encode"):
            coded = self._code_rows(rows, signals)
            return [
                self._coding(
                    signal, [(r, c) for r, c in zip(rows, coded, strict=True) if r.signal == i]
                )
                for i, signal in enumerate(signals)
            ]

    @torch.inference_mode()
    def decode(self, coded: Sequence[Coded], watch: Stopwatch) -> list[Coding]:
        """Decode the log-mel of what was read from compressed files, together.

        Raises:
            DamagedChunkError: If some chunk's symbols are not those that were coded.
        """
        with watch.stage("encode"):
            present = [
                (file, place)
                for file, one in enumerate(coded)
                for place in one.chunks
                if one.chunks[place] is not None
            ]
            chunks = [cast(CodedChunk, coded[file].chunks[place]) for file, place in present]
            log_lambdas = [coded[file].log_lambda for file, _ in present]
            decoded = dict(zip(present, self._decode_rows(chunks, log_lambdas), strict=True))
            return [
                self._stitched(one, {p: decoded[i, p] for p in one.chunks if (i, p) in decoded})
                for i, one in enumerate(coded)
            ]

    def _stitched(
        self, coded: Coded, decoded: Mapping[tuple[int, int], tuple[Tensor, Angles | None]]
    ) -> Coding:
        """Chunks of one file joined; those that are missing are silent."""
        needed = coded.stretch.chunks_needed(self.spectrogram)
        total = coded.stretch.frames(self.spectrogram)
        silence = torch.full((self.spectrogram.num_mels, CHUNK_FRAMES), self.spectrogram.log_floor)
        log_mels, angles = [], []
        for channel in sorted(set(coded.channel_of)):
            own = [
                decoded.get((channel, chunk), (silence[:, : len(chunk_range(chunk, total))], None))
                for chunk in needed
            ]
            log_mels.append(stitch([log_mel for log_mel, _ in own], needed[0], total))
            angles.append(stitch_angles([angle for _, angle in own], needed[0], total))
        return Coding(coded.stretch, coded.channel_of, tuple(log_mels), tuple(angles))

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
    def payload_bytes(
        self, log_mels: Sequence[Tensor], angles: Sequence[Angles | None], log_lambda: float
    ) -> list[int]:
        """Bytes of the payload under a lambda of each chunk: log-mel `[mel, frame]`, and angles."""
        sizes: dict[int, int] = {}
        shapes = [padded_frames(log_mel.shape[1]) for log_mel in log_mels]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            log_mel, lengths = stack_rows(
                [log_mels[i] for i in indices], shape, self._batch_frames, self.device
            )
            conditions = Conditions.at_lambda(log_lambda, len(lengths), self.device)
            of_rows = [angles[i] for i in indices]
            made = encode_chunks(self._model, log_mel, lengths, conditions, len(indices), of_rows)
            sizes |= {i: len(chunk.payload) for i, chunk in zip(indices, made, strict=True)}
        return [sizes[i] for i in range(len(log_mels))]

    def _code_rows(self, rows: list[Row], signals: Sequence[Codable]) -> list[CodedRow]:
        coded: dict[int, CodedRow] = {}
        channels = [coded_channels(signal) for signal in signals]
        shapes = [padded_frames(row.log_mel.shape[1]) for row in rows]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            log_mel, lengths = stack_rows(
                [rows[i].log_mel for i in indices], shape, self._batch_frames, self.device
            )
            conditions = quality_conditions(
                [signals[rows[i].signal].log_lambda for i in indices], len(lengths), self.device
            )
            own = [rows[i] for i in indices]
            places = [(channels[row.signal][row.channel], row.chunk) for row in own]
            angles = [
                angles_at(signals[row.signal], *place)
                for row, place in zip(own, places, strict=True)
            ]
            made = self._code_batch(log_mel, lengths, conditions, own, angles)
            for i, one, (channel, index) in zip(indices, made, places, strict=True):
                chunk = one.chunk and replace(one.chunk, channel=channel, index=index)
                coded[i] = replace(one, chunk=chunk)
        return [coded[i] for i in range(len(rows))]

    def _code_batch(
        self,
        log_mel: Tensor,
        lengths: Tensor,
        conditions: Conditions,
        own: Sequence[Row],
        angles: Sequence[Angles | None],
    ) -> list[CodedRow]:
        """Code padded rows, of which the first are `own`, and decode what was coded."""
        vae, chunks = self._model.vae, cast(list[CodedChunk | None], [None] * len(own))
        # Without symbols, what the decoder gets is the latents themselves.
        if self._move is not None or self._model.frequency_table is None:
            output = vae.encode(log_mel, lengths, conditions)
            bits = output.level_bits().sum(dim=1).tolist()
            latents = replace(with_detail(vae, log_mel, output), model_id=self._model.id)
            if self._move is None:
                decoded = detailed(output.log_mel, latents, self.spectrogram.log_floor)
            else:
                decoded = self._move.decode(vae, latents, log_mel, own)
        else:
            made = encode_chunks(self._model, log_mel, lengths, conditions, len(own), angles)
            decoded, _ = decode_chunks(
                self._model, made, log_mel.shape[2], conditions, num_rows=len(lengths)
            )
            bits = [sum(chunk.level_bits) + chunk.side_bits for chunk in made]
            chunks = list(made)
        rows = decoded.cpu()
        return [
            CodedRow(rows[i, :, : row.log_mel.shape[1]], bits[i], chunks[i])
            for i, row in enumerate(own)
        ]

    def _decode_rows(
        self, chunks: Sequence[CodedChunk], log_lambdas: Sequence[float | None]
    ) -> list[tuple[Tensor, Angles | None]]:
        """Log-mel `[mel, frame]` and angles of each chunk."""
        decoded: dict[int, tuple[Tensor, Angles | None]] = {}
        shapes = [padded_frames(chunk.num_frames) for chunk in chunks]
        for shape, indices in batches_by_shape(shapes, self._batch_frames):
            num_rows = batch_rows(shape, self._batch_frames)
            own = [log_lambdas[i] for i in indices]
            conditions = quality_conditions(own, num_rows, self.device)
            rows = [chunks[i] for i in indices]
            log_mel, angles = decode_chunks(self._model, rows, shape, conditions, num_rows)
            log_mel = log_mel.cpu()
            for place, i in enumerate(indices):
                decoded[i] = (log_mel[place, :, : chunks[i].num_frames], angles[place])
        return [decoded[i] for i in range(len(chunks))]

    def _coding(self, signal: Codable, own: list[tuple[Row, CodedRow]]) -> Coding:
        stretch = signal.stretch
        total = stretch.frames(self.spectrogram)
        first = stretch.chunks_needed(self.spectrogram)[0]
        channels = range(len(coded_channels(signal)))
        log_mels = tuple(
            stitch([c.log_mel for r, c in own if r.channel == channel], first, total)
            for channel in channels
        )
        coding = Coding(stretch, channel_of(signal), log_mels, stitched_angles(signal))
        if self._move is not None or self._model.vae.timbre is not None:
            return coding  # meant to differ, or held up by detail that no bits are counted for
        wanted = [(r, c) for r, c in own if stretch.first_chunk <= r.chunk < stretch.last_chunk]
        wanted.sort(key=lambda pair: (pair[0].chunk, pair[0].channel))
        errors = [
            float(log_mel_to_db((c.log_mel - r.log_mel).abs()).mean()) * r.log_mel.shape[1]
            for r, c in wanted
        ]
        return replace(
            coding,
            chunks=tuple(c.chunk for _, c in wanted if c.chunk is not None),
            frames=sum(r.log_mel.shape[1] for r, _ in wanted),
            bits=sum(c.bits for _, c in wanted),
            error_db=sum(errors),
        )

    def _windows(self, index: int, coding: Coding) -> Iterator[Window]:
        stretch, config = coding.stretch, self.spectrogram
        total = stretch.frames(config)
        base = stretch.frames_needed(config).start
        context = self._synthesizer.context_frames + self._reach_frames
        shape = padded_frames(total) if num_chunks(total) == 1 else CHUNK_FRAMES + 2 * context
        for channel, log_mel in enumerate(coding.log_mels):
            angles = coding.angles[channel] if coding.angles else None
            for chunk in range(stretch.first_chunk, stretch.last_chunk):
                core = core_range(chunk, total)
                start = max(0, core.start - context)
                stop = min(total, core.stop + context)
                keep = FrameRange(core.start - start, core.stop - start)
                here = slice(start - base, stop - base)
                turned = None if angles is None else angles[:, here]
                yield Window(index, channel, log_mel[:, here], turned, keep, shape)

    def _vocode(self, windows: list[Window]) -> list[Waveform]:
        hop = self.spectrogram.hop_samples
        pieces: dict[int, Waveform] = {}
        shapes = [window.shape_frames for window in windows]
        for shape, indices in batches_by_shape(shapes, self._sound_batch_frames):
            log_mel, lengths = stack_rows(
                [windows[i].log_mel for i in indices], shape, self._sound_batch_frames, self.device
            )
            # Only their places in a chunk's step count, and what is kept begins with one.
            starts = [-windows[i].keep.start for i in indices] + [0] * (len(lengths) - len(indices))
            first_frames = torch.tensor(starts, device=self.device)
            angles = stack_angles([windows[i] for i in indices], len(lengths), self.device)
            sound = self._synthesizer(log_mel, lengths, first_frames, angles).cpu().numpy()
            for place, i in enumerate(indices):
                audible = self._audible(windows[i])
                pieces[i] = sound[place, audible.start * hop : audible.stop * hop]
        return [pieces[i] for i in range(len(windows))]

    def _audible(self, window: Window) -> FrameRange:
        """What is kept of a window, and as much beside it as the limiter looks at."""
        keep, reach = window.keep, self._reach_frames
        stop = min(window.log_mel.shape[1], keep.stop + reach)
        return FrameRange(max(0, keep.start - reach), stop)

    def _join(self, coding: Coding, own: list[tuple[Window, Waveform]]) -> Waveform:
        """Pieces in order of their chunks, channels in order, cut at the file's end."""
        stretch, hop = coding.stretch, self.spectrogram.hop_samples
        num = stretch.last_chunk - stretch.first_chunk
        joined = []
        for chunk in range(num):
            same_time = own[chunk::num]  # a window a channel
            window = same_time[0][0]
            limited = limit_peaks(np.stack([piece for _, piece in same_time]))
            start = (window.keep.start - self._audible(window).start) * hop
            joined.append(limited[:, start : start + len(window.keep) * hop])
        sound = np.concatenate(joined, axis=1)  # [coded channel, sample]
        coded = sorted(set(coding.channel_of))
        order = [coded.index(channel) for channel in coding.channel_of]
        start = core_range(stretch.first_chunk, stretch.frames(self.spectrogram)).start * hop
        return sound[order, : stretch.num_samples - start]
