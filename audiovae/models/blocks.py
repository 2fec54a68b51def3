"""Layers that two or more networks use.

Every layer keeps the steps beyond a signal's end at zero (`mask`), as a convolution's own zero
padding would: a padded signal and an unpadded one then give the same result, and chunks of one
fixed shape can hold signals of any length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of `[batch, channel, step]`."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each step; shape is kept."""
        return super().forward(features.transpose(1, 2)).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a pointwise MLP, as a residual.

    ConvNeXt (Liu et al., 2022, arXiv:2201.03545) in one dimension, as in Vocos (Siuzdak, 2023,
    arXiv:2306.00814); the context, if any, scales and shifts the normalised features (FiLM,
    Perez et al., 2018, arXiv:1709.07871).
    """

    def __init__(
        self,
        width: int,
        expansion: int,
        kernel_size: int,
        context_channels: int = 0,
        residual_scale: float = 0.2,
    ) -> None:
        """Build the block; `context_channels` 0 means no conditioning."""
        super().__init__()
        self.depthwise = nn.Conv1d(
            width, width, kernel_size, padding=kernel_size // 2, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.film = nn.Linear(context_channels, 2 * width) if context_channels else None
        self.expand = nn.Linear(width, expansion * width)
        self.activation = nn.GELU(approximate="tanh")
        self.contract = nn.Linear(expansion * width, width)
        self.residual_scale = nn.Parameter(torch.full((width,), residual_scale))
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, features: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Transform `[batch, channel, step]`; `mask` is `[batch, 1, step]` of 0 and 1."""
        hidden = self.norm(self.depthwise(features).transpose(1, 2))  # [batch, step, channel]
        if self.film is not None:
            if context is None:
                raise ValueError("expected a context for a conditioned block, got None")
            scale, shift = self.film(context)[:, None].chunk(2, dim=-1)
            hidden = hidden * (1 + scale) + shift
        hidden = self.contract(self.activation(self.expand(hidden))) * self.residual_scale
        result: Tensor = (features + hidden.transpose(1, 2)) * mask
        return result


class Downsample(nn.Module):
    """Join `stride` neighbouring steps into one."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build a convolution whose kernel is its stride."""
        super().__init__()
        self.convolution = nn.Conv1d(in_channels, out_channels, stride, stride=stride)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """`[batch, channel, step]` to `[batch, channel, step / stride]`; mask of the result."""
        result: Tensor = self.convolution(features) * mask
        return result


class Upsample(nn.Module):
    """Split each step into `stride` steps; the mirror of `Downsample`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build a pointwise map to `stride` times the channels."""
        super().__init__()
        self.stride = stride
        self.linear = nn.Conv1d(in_channels, stride * out_channels, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """`[batch, channel, step]` to `[batch, channel, step * stride]`; mask of the result."""
        batch, _, steps = features.shape
        parts = self.linear(features).reshape(batch, -1, self.stride, steps)
        result: Tensor = parts.transpose(2, 3).flatten(2) * mask  # [batch, channel, step * stride]
        return result


def step_mask(num_frames: Tensor, num_steps: int, stride: int) -> Tensor:
    """`[batch, 1, step]` of 1 where a step covers at least one frame of signal, else 0."""
    valid = torch.div(num_frames + stride - 1, stride, rounding_mode="floor")
    steps = torch.arange(num_steps, device=num_frames.device)
    return (steps[None] < valid[:, None])[:, None].float()
