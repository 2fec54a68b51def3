"""What every kind of conditioning is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovae.latents import Conditions


class Conditioning(nn.Module):
    """From the conditions of a batch to a part of its context."""

    context_channels: int

    def forward(self, conditions: Conditions) -> Tensor:
        """`[batch, channel]`, from this kind's field of `conditions`.

        Raises:
            ShapeError: If that field is not given.
        """
        raise NotImplementedError


def in_a_row(told: list[Tensor]) -> Tensor | None:
    """`[batch, channel]` of all the channels; what is told of no item in particular is repeated."""
    batch = max([len(one) for one in told], default=0)
    return torch.cat([one.expand(batch, -1) for one in told], dim=1) if told else None
