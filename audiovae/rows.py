"""Rows of batches: the chunks that the VAE sees, and the windows that become sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiovae.chunks import FrameRange, batch_rows, chunk_range, pad_frames
from audiovae.codec import CodedChunk
from audiovae.gains import NUM_BANDS
from audiovae.latents import Conditions
from audiovae.stretches import Codable, coded_channels


@dataclass(frozen=True)
class Row:
    """One chunk of one coded channel: what the VAE sees.

    Attributes:
        signal: Which signal it is of.
        channel: Which of its coded channels.
        chunk: Which chunk.
        frames: The frames of the file that it covers.
        log_mel: `[mel, frame]`.
    """

    signal: int
    channel: int
    chunk: int
    frames: FrameRange
    log_mel: Tensor


@dataclass(frozen=True)
class CodedRow:
    """What became of a row.

    Attributes:
        log_mel: `[mel, frame]`, decoded.
        bits: The model's own estimate of the code's length.
        chunk: The code, if the model makes symbols.
    """

    log_mel: Tensor
    bits: float
    chunk: CodedChunk | None


@dataclass(frozen=True)
class Window:
    """A stretch of decoded log-mel, and which of its frames are kept as sound.

    Attributes:
        coding: Which coding it is of.
        channel: Which of its channels.
        log_mel: `[mel, frame]`.
        angles: `[band, frame]`, radians; None if it is in phase with the first channel.
        keep: The frames that are kept.
        shape_frames: Padded length of the batch it goes into.
    """

    coding: int
    channel: int
    log_mel: Tensor
    angles: Tensor | None
    keep: FrameRange
    shape_frames: int


def chunk_rows(index: int, signal: Codable) -> Iterator[Row]:
    """The chunks that a signal needs, channel by channel; `index` is the signal's.

    Channels that sound the same in one chunk only are the same row there.
    """
    stretch, config = signal.stretch, signal.config
    needed, total = stretch.frames_needed(config), stretch.frames(config)
    log_mel = signal.log_mel()
    coded = coded_channels(signal)
    for place, channel in enumerate(coded):
        for chunk in stretch.chunks_needed(config):
            source = coded.index(signal.sources[chunk][channel])
            frames = chunk_range(chunk, total)
            start, stop = frames.start - needed.start, frames.stop - needed.start
            yield Row(index, place, chunk, frames, log_mel[source, :, start:stop])


def stack_rows(
    log_mels: Sequence[Tensor], shape: int, batch_frames: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows padded to one shape and one number: `[batch, mel, frame]` and `[batch]`."""
    lengths = [log_mel.shape[1] for log_mel in log_mels]
    missing = batch_rows(shape, batch_frames) - len(log_mels)
    padded = torch.stack([pad_frames(log_mel, shape) for log_mel in log_mels])
    padded = torch.nn.functional.pad(padded, (0, 0, 0, 0, 0, missing))
    counts = torch.tensor(lengths + [1] * missing, device=device)
    return padded.to(device), counts


def stack_angles(windows: Sequence[Window], num_rows: int, device: torch.device) -> Tensor | None:
    """Angles of windows as those of a batch: `[batch, band, frame]`; None if all are in phase."""
    if all(window.angles is None for window in windows):
        return None
    stacked = torch.zeros(num_rows, NUM_BANDS, windows[0].shape_frames, device=device)
    for row, window in zip(stacked, windows, strict=False):
        if window.angles is not None:
            row[:, : window.angles.shape[1]] = window.angles
    return stacked


def quality_conditions(
    log_lambdas: Sequence[float | None], num_rows: int, device: torch.device
) -> Conditions:
    """Conditions of a batch of `num_rows`; rows without a lambda of their own repeat the last."""
    given = [value for value in log_lambdas if value is not None]
    if not given:
        return Conditions()
    filled = given + [given[-1]] * (num_rows - len(given))
    return Conditions(torch.tensor(filled, dtype=torch.float32, device=device))
