"""Layers that two or more networks use.

Every layer keeps the steps beyond a signal's end at zero (`mask`), as a convolution's own zero
padding would: a padded signal and an unpadded one then give the same result, and chunks of one
fixed shape can hold signals of any length.

Features are `[batch, channel, step]` with all mel bands as channels, or, where a network keeps
rows of bands apart, `[batch, channel, cell]`: the steps of the lowest row, then those of the
next. A pointwise or strided layer need not know, as strides divide the steps of a row.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of `[batch, channel, step]`."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each step; shape is kept."""
        return super().forward(features.transpose(1, 2)).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a pointwise MLP, as a residual.

    ConvNeXt (Liu et al., 2022, arXiv:2201.03545) in one dimension, as in Vocos (Siuzdak, 2023,
    arXiv:2306.00814); with rows in two, over frequency and time. A dilation spreads the kernel over
    time (Yu and Koltun, 2016, arXiv:1511.07122). The context, if any, scales and shifts the
    normalised features, those of every row by themselves (FiLM, Perez et al., 2018,
    arXiv:1709.07871).
    """

    def __init__(
        self,
        width: int,
        expansion: int,
        kernel_size: int,
        context_channels: int = 0,
        residual_scale: float = 0.2,
        rows: int = 1,
        dilation: int = 1,
    ) -> None:
        """Build the block; `context_channels` 0 means no conditioning."""
        super().__init__()
        self.rows, self.dilation = rows, dilation
        convolution = nn.Conv1d if rows == 1 else nn.Conv2d
        self.depthwise = convolution(
            width, width, kernel_size, padding=kernel_size // 2, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.film = nn.Linear(context_channels, 2 * width * rows) if context_channels else None
        self.expand = nn.Linear(width, expansion * width)
        self.activation = nn.GELU(approximate="tanh")
        self.contract = nn.Linear(expansion * width, width)
        self.residual_scale = nn.Parameter(torch.full((width,), residual_scale))
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, features: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Transform `[batch, channel, cell]`; `mask` is `[batch, 1, cell]` of 0 and 1."""
        hidden = self.norm(self._mixed(features).transpose(1, 2))  # [batch, cell, channel]
        if self.film is not None:
            if context is None:
                raise ValueError("expected a context for a conditioned block, got None")
            batch, _, channels = hidden.shape
            told = self.film(context).reshape(-1, self.rows, 1, 2 * channels)
            scale, shift = told.chunk(2, dim=-1)  # [batch or 1, row, 1, channel] each
            by_row = hidden.reshape(batch, self.rows, -1, channels)
            hidden = (by_row * (1 + scale) + shift).flatten(1, 2)
        hidden = self.contract(self.activation(self.expand(hidden))) * self.residual_scale
        result: Tensor = (features + hidden.transpose(1, 2)) * mask
        return result

    def _mixed(self, features: Tensor) -> Tensor:
        """Each channel's convolution, over steps or over rows and steps."""
        num_steps = features.shape[2] // self.rows
        cells = features
        if self.rows > 1:
            cells = features.reshape(*features.shape[:2], self.rows, num_steps)
        if self.dilation > 1:
            cells = _combed(cells, self.dilation)
        if self.rows > 1:
            # Channels last in memory: depthwise convolutions are twice as fast, the norm needs it.
            cells = cells.contiguous(memory_format=torch.channels_last)
        mixed = cast(Tensor, self.depthwise(cells))
        if self.dilation > 1:
            mixed = _uncombed(mixed, self.dilation)[..., :num_steps]
        return mixed.flatten(2)


def _combed(cells: Tensor, dilation: int) -> Tensor:
    """Every `dilation`-th step as an item of its own: `[batch * dilation, ..., step / dilation]`.

    A plain convolution of these is a dilated one of the whole, and several times as fast where
    depthwise kernels with gaps have no fast path, as on CPUs. Steps are padded with zeros.
    """
    padded = functional.pad(cells, (0, -cells.shape[-1] % dilation))
    parts = padded.reshape(*padded.shape[:-1], -1, dilation)
    return parts.movedim(-1, 1).flatten(0, 1)


def _uncombed(combed: Tensor, dilation: int) -> Tensor:
    """The inverse of `_combed`, padding included."""
    parts = combed.reshape(-1, dilation, *combed.shape[1:])
    return parts.movedim(1, -1).flatten(-2)


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


def cell_mask(num_frames: Tensor, num_steps: int, stride: int, rows: int) -> Tensor:
    """`[batch, 1, cell]`: the mask of the steps, once for every row."""
    return step_mask(num_frames, num_steps, stride).repeat(1, 1, rows)


def bands_to_rows(log_mel: Tensor, rows: int) -> Tensor:
    """`[batch, mel, frame]` as `[batch, band, cell]`: the bands of each row as channels."""
    batch, bands, frames = log_mel.shape
    return log_mel.reshape(batch, rows, bands // rows, frames).transpose(1, 2).flatten(2)


def rows_to_bands(features: Tensor, rows: int) -> Tensor:
    """The inverse of `bands_to_rows`."""
    return features.reshape(*features.shape[:2], rows, -1).transpose(1, 2).flatten(1, 2)


def cells_to_steps(features: Tensor, rows: int) -> Tensor:
    """`[batch, channel, cell]` as `[batch, channel * row, step]`: the rows as channels."""
    return features.reshape(*features.shape[:2], rows, -1).flatten(1, 2)


def rows_to_cells(by_row: Tensor, num_steps: int) -> Tensor:
    """`[channel, row]` at every step: `[1, channel, cell]`."""
    return by_row[None, :, :, None].expand(-1, -1, -1, num_steps).flatten(2)
