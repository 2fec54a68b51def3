"""Latents drawn from the prior, all of them or those that are not kept of a given sound.

The prior of each group is computed from the groups above it, so what is drawn fits what was kept:
fine levels drawn under the coarse levels of a sound vary it, steps drawn after those of its
beginning continue it. The network is convolutional in time and is run over the whole length at
once; chunks are a matter of the file format.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.errors import ConfigError, ShapeError
from audiovae.latents import Conditions, Latents
from audiovae.models.blocks import step_mask


@dataclass(frozen=True)
class Kept:
    """The part of a sound that stays.

    Attributes:
        latents: Of the sound.
        masks: For each group `[step]`, true where a step stays; beyond its end nothing does.
    """

    latents: Latents
    masks: tuple[Tensor, ...]


def keep_levels(latents: Latents, levels: Collection[int]) -> Kept:
    """Keep some levels (0 is the coarsest) of a sound, all along it."""
    masks = tuple(
        torch.full(group.shape[2:], level in levels)
        for group, level in zip(latents.groups, latents.levels, strict=True)
    )
    return Kept(latents, masks)


def keep_beginning(latents: Latents, num_frames: int) -> Kept:
    """Keep every step that ends within the first `num_frames` frames."""
    masks = tuple(
        (torch.arange(group.shape[2]) + 1) * stride <= num_frames
        for group, stride in zip(latents.groups, latents.strides, strict=True)
    )
    return Kept(latents, masks)


def level_temperatures(model: Model, given: Sequence[float]) -> tuple[float, ...]:
    """One temperature a level, coarse to fine, from one for all or one for each.

    Raises:
        ConfigError: If there are neither one nor as many as levels.
    """
    names = model.vae.config.level_names
    if len(given) not in (1, len(names)):
        raise ConfigError(
            f"expected one temperature, or {len(names)} for the levels {', '.join(names)}, got "
            f"{len(given)}; give 0.7, or one for each level separated by commas"
        )
    return tuple(given) * (len(names) if len(given) == 1 else 1)


@torch.inference_mode()
def draw(
    model: Model,
    num_frames: int,
    conditions: Conditions,
    temperatures: Sequence[float],
    seed: int,
    kept: Kept | None = None,
) -> Tensor:
    """Draw a sound from the prior.

    Args:
        model: From `load_model`.
        num_frames: Mel frames of it.
        conditions: Of one row, or of as many as `kept` has.
        temperatures: One a level, coarse to fine: 1 is the prior, 0 its most likely sound.
        seed: Same seed, same sound. All rows (channels of one sound) are drawn alike.
        kept: What stays of a given sound, one row a channel; None for nothing.

    Returns:
        `[row, mel, frame]`, natural log of magnitude.

    Raises:
        ShapeError: If no frame is asked for.
    """
    if num_frames < 1:
        raise ShapeError(f"expected at least one frame to draw, got {num_frames}; ask for more")
    vae, device = model.vae, model.device
    stride = vae.config.vae.total_stride
    padded = -(-num_frames // stride) * stride
    rows = 1 if kept is None else kept.latents.batch_size
    levels, strides = vae.config.vae.group_levels, vae.config.vae.group_strides
    lengths = torch.full((rows,), num_frames, device=device)
    generators = [torch.Generator(device).manual_seed(seed) for _ in range(rows)]
    kinds = vae.bottlenecks()

    def choose(index: int, _features: Tensor, prior: Tensor) -> Tensor:
        temperature = temperatures[levels[index]]
        made = [
            kinds[index].generate(prior[row : row + 1], temperature, generator)
            for row, generator in enumerate(generators)
        ]
        latent = torch.cat(made)
        if kept is not None:
            latent = _with_kept(latent, kept.latents.groups[index], kept.masks[index])
        return latent * step_mask(lengths, latent.shape[2], strides[index])

    log_mel = vae.top_down(lengths, padded, conditions, choose)
    return log_mel[:, :, :num_frames]


def encode_whole(model: Model, log_mel: Tensor, conditions: Conditions) -> Latents:
    """Latents of sounds of one length, each in one piece.

    Args:
        model: From `load_model`.
        log_mel: `[row, mel, frame]`.
        conditions: Of as many rows.
    """
    with torch.inference_mode():
        frames, stride = log_mel.shape[2], model.config.vae.total_stride
        padded = torch.nn.functional.pad(log_mel, (0, -frames % stride)).to(model.device)
        lengths = torch.full((len(log_mel),), frames, device=model.device)
        latents = model.vae.encode(padded, lengths, conditions).latents
        return replace(latents, model_id=model.id)


def _with_kept(latent: Tensor, stays: Tensor, mask: Tensor) -> Tensor:
    """`[row, channel, step]`: what was drawn, and where `mask` says so what was kept."""
    steps = min(latent.shape[2], stays.shape[2])
    mask = mask[:steps].to(latent.device)
    merged = torch.where(mask, stays[:, :, :steps].to(latent), latent[:, :, :steps])
    return torch.cat([merged, latent[:, :, steps:]], dim=2)
