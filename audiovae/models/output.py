"""What one pass through the hierarchical VAE gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiovae.latents import Latents


@dataclass(frozen=True)
class VAEOutput:
    """What one pass through the model gives.

    Attributes:
        log_mel: `[batch, mel, frame]`, the reconstruction, natural log of magnitude.
        group_bits: One `[batch, unit, step]` a group, coarse to fine: the KL terms in bits,
            zero beyond each signal's end.
        latents: The groups themselves.
        group_penalties: One `[batch, 1, step]` a group that has one: what training adds, in nats.
        evidence: `[batch, channel, step]` of each level, coarse to fine: the bottom-up features.
    """

    log_mel: Tensor
    group_bits: tuple[Tensor, ...]
    latents: Latents
    group_penalties: tuple[Tensor, ...] = ()
    evidence: tuple[Tensor, ...] = ()

    def level_bits(self) -> Tensor:
        """`[batch, level]`, coarse to fine: bits spent on each level."""
        num_levels = max(self.latents.levels) + 1
        totals = [bits.sum(dim=(1, 2)) for bits in self.group_bits]
        zero = torch.zeros_like(totals[0])
        return torch.stack(
            [
                sum((t for t, at in zip(totals, self.latents.levels, strict=True) if at == i), zero)
                for i in range(num_levels)
            ],
            dim=1,
        )
