"""Long signals as chunks, and the windows in which they are processed.

The chunk is part of the file format, not of the machine: the VAE codes 1024 mel frames (11.9 s)
at a time, cut every 992 frames, without seeing its neighbours; the 32 frames that two chunks share
are cross-faded in log-mel. Sound is made in windows on that same grid, with enough context on both
sides that the result equals that of the whole file.

    frames   0          992  1024      1984 2016
    chunk 0  |================|
    chunk 1             |=================|
    cross-fade          |----|        |----|
    window 0 |==========|ctx|
    window 1        |ctx|=============|ctx|

Short signals use a smaller shape: computing 12 s for a drum hit would be waste. The shape follows
from the signal's own length alone, so results never depend on what else is in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiovae.errors import ShapeError

CHUNK_FRAMES = 1024
OVERLAP_FRAMES = 32
STEP_FRAMES = CHUNK_FRAMES - OVERLAP_FRAMES
SHAPES_FRAMES = (64, 128, 192, 256, 320, 448, 640, 832, CHUNK_FRAMES)
"""Padded lengths of a chunk; all hold a whole number of the coarsest steps."""
BATCH_FRAMES = 512
"""Frames of one batch on a CPU: 8 chunks of the smallest shape, or one of a large one.

Twice as many would be a tenth faster, but a batch is always computed whole: a file that is alone
in it pays for all of it."""


@dataclass(frozen=True)
class FrameRange:
    """Frames `[start, stop)`."""

    start: int
    stop: int

    def __len__(self) -> int:
        """Number of frames."""
        return self.stop - self.start


def num_chunks(num_frames: int) -> int:
    """Chunks of a signal of `num_frames` mel frames.

    >>> num_chunks(1), num_chunks(1024), num_chunks(1025)
    (1, 1, 2)
    """
    if num_frames < 1:
        raise ShapeError(f"expected a signal of at least one frame, got {num_frames}")
    return 1 + max(0, -(-(num_frames - CHUNK_FRAMES) // STEP_FRAMES))


def chunk_range(index: int, num_frames: int) -> FrameRange:
    """Frames that chunk `index` codes; the last chunk ends with the signal."""
    start = index * STEP_FRAMES
    return FrameRange(start, min(start + CHUNK_FRAMES, num_frames))


def core_range(index: int, num_frames: int) -> FrameRange:
    """Frames whose sound window `index` makes: the chunk less its overlap with the next."""
    start = index * STEP_FRAMES
    is_last = index == num_chunks(num_frames) - 1
    return FrameRange(start, num_frames if is_last else start + STEP_FRAMES)


def padded_frames(num_frames: int) -> int:
    """Smallest shape that holds a chunk of `num_frames` frames.

    >>> padded_frames(3), padded_frames(65), padded_frames(1024)
    (64, 128, 1024)
    """
    for shape in SHAPES_FRAMES:
        if num_frames <= shape:
            return shape
    raise ShapeError(f"expected at most {CHUNK_FRAMES} frames of a chunk, got {num_frames}")


def batch_rows(shape_frames: int, batch_frames: int = BATCH_FRAMES) -> int:
    """How many chunks of one shape make a batch of `batch_frames` frames."""
    return max(1, batch_frames // shape_frames)


def pad_frames(log_mel: Tensor, frames: int) -> Tensor:
    """Zero-pad the last axis to `frames`; the model masks what is beyond the signal."""
    if log_mel.shape[-1] > frames:
        raise ShapeError(f"expected at most {frames} frames, got {log_mel.shape[-1]}")
    return torch.nn.functional.pad(log_mel, (0, frames - log_mel.shape[-1]))


def crossfade(left: Tensor, right: Tensor) -> Tensor:
    """Fade from `left` to `right`, both `[..., frame]` over the same frames."""
    count = left.shape[-1]
    weight = (torch.arange(count, dtype=left.dtype, device=left.device) + 0.5) / count
    return left * (1 - weight) + right * weight


def stitch(chunks: Sequence[Tensor], first_chunk: int, num_frames: int) -> Tensor:
    """Join neighbouring decoded chunks, cross-fading where they overlap.

    Args:
        chunks: `[..., frame]` each, of the chunks `first_chunk, first_chunk + 1, ...`.
        first_chunk: Index of the first one.
        num_frames: Length of the whole signal.

    Returns:
        `[..., frame]` from the first frame of the first chunk to the last of the last.
    """
    joined = [chunks[0]]
    for offset, chunk in enumerate(chunks[1:], start=1):
        before = chunk_range(first_chunk + offset - 1, num_frames)
        overlap = before.stop - (first_chunk + offset) * STEP_FRAMES
        blended = crossfade(joined[-1][..., -overlap:], chunk[..., :overlap])
        joined[-1] = joined[-1][..., :-overlap]
        joined += [blended, chunk[..., overlap:]]
    return torch.cat(joined, dim=-1)


def batches_by_shape(
    shapes: Sequence[int], batch_frames: int = BATCH_FRAMES
) -> Iterator[tuple[int, list[int]]]:
    """Cut a list of padded lengths into batches of equal shape: `(shape, indices)`.

    >>> list(batches_by_shape([512, 1024, 512], batch_frames=1024))
    [(1024, [1]), (512, [0, 2])]
    """
    waiting: dict[int, list[int]] = {}
    for index, shape in enumerate(shapes):
        batch = waiting.setdefault(shape, [])
        batch.append(index)
        if len(batch) == batch_rows(shape, batch_frames):
            yield shape, waiting.pop(shape)
    yield from waiting.items()
