"""What measurements of sounds have in common: encoding at a quality, and means over blocks."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiovae.checkpoint import Model
from audiovae.latents import Conditions
from audiovae.models.output import VAEOutput

Arrays = dict[str, NDArray[Any]]
"""What is kept of a sound, by name."""


def encode_at(model: Model, log_mel: Tensor, num_frames: Tensor, quality: int) -> VAEOutput:
    """Encode a batch `[batch, mel, frame]` at the nearest quality that the model has."""
    log_lambda = None
    if model.quality_scale:
        point = min(model.quality_scale, key=lambda point: abs(point.quality - quality))
        log_lambda = point.log_lambda
    conditions = Conditions.at_lambda(log_lambda, len(log_mel), model.device)
    return model.vae.encode(log_mel, num_frames, conditions)


def block_means(values: Tensor, num_frames: int, block_frames: int) -> Tensor:
    """Means over blocks of the first `num_frames` of `[..., frame]`; the last may be shorter."""
    cut = values[..., :num_frames]
    blocks = -(-num_frames // block_frames)
    padded = functional.pad(cut, (0, blocks * block_frames - num_frames))
    sums = padded.reshape(*padded.shape[:-1], blocks, block_frames).sum(dim=-1)
    counts = torch.full((blocks,), float(block_frames), device=values.device)
    counts[-1] = num_frames - (blocks - 1) * block_frames
    return sums / counts


def block_peaks(values: Tensor, num_frames: int, block_frames: int) -> Tensor:
    """Maxima over blocks, as `block_means`."""
    blocks = -(-num_frames // block_frames)
    missing = (0, blocks * block_frames - num_frames)
    cut = functional.pad(values[..., :num_frames], missing, value=-math.inf)
    return cut.reshape(*cut.shape[:-1], blocks, block_frames).amax(dim=-1)


def in_bands(values: Tensor, count: int) -> Tensor:
    """`[mel, frame]` as `[band, mel of the band, frame]`."""
    return values.reshape(count, -1, values.shape[-1])


def at_frames(values: Tensor, stride: int, num_frames: int) -> Tensor:
    """`[channel, step]` of a level as `[channel, frame]`: a step for each frame that it covers."""
    return values.repeat_interleave(stride, dim=-1)[..., :num_frames]
