"""One latent group of the hierarchy: prior, posterior, and its way back into the features."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.config import LevelConfig, ModelConfig
from audiovae.models.blocks import ChannelNorm, ConvNeXtBlock, cells_to_steps
from audiovae.models.bottlenecks import LatentSample, build_bottleneck

ChooseLatent = Callable[[int, Tensor, Tensor], Tensor]
"""`choose(group, features, prior) -> latent`: decides one group of the top-down path."""
TakeLatent = Callable[[int, Tensor, Tensor, Tensor], LatentSample]
"""`take(group, posterior, prior, mask) -> sample`: decides one group where there is a posterior.

`mask` `[batch, 1, step]` is 0 at steps without signal.
"""


class LatentGroup(nn.Module):
    """Prior, posterior and injection of one latent group."""

    def __init__(self, config: ModelConfig, level: LevelConfig, context_channels: int) -> None:
        """Build the layers of one group of `level`."""
        super().__init__()
        width = config.vae.width
        self.rows = rows = config.vae.rows
        self.bottleneck = build_bottleneck(config.bottleneck, level.channels * rows)
        self.blocks = conditioned_blocks(config, level.decoder_blocks, context_channels)
        self.prior_norm = ChannelNorm(width)
        self.prior = nn.Conv1d(width, self.bottleneck.prior_channels // rows, 1)
        self.merge = nn.Conv1d(2 * width, width, 1)
        self.posterior_blocks = conditioned_blocks(config, 1, context_channels)
        self.posterior_norm = ChannelNorm(width)
        self.posterior = nn.Conv1d(width, self.bottleneck.posterior_channels // rows, 1)
        self.inject = nn.Conv1d(level.channels, width, 1)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(cast(Tensor, self.prior.bias))

    def prior_of(self, features: Tensor) -> Tensor:
        """Raw prior features `[batch, parameter, step]`."""
        return cells_to_steps(self.prior(self.prior_norm(features)), self.rows)

    def posterior_of(
        self, features: Tensor, evidence: Tensor, mask: Tensor, context: Tensor | None
    ) -> Tensor:
        """Raw posterior features from the top-down features and the bottom-up evidence."""
        hidden = self.merge(torch.cat([features, evidence], dim=1)) * mask
        for block in self.posterior_blocks:
            hidden = block(hidden, mask, context)
        return cells_to_steps(self.posterior(self.posterior_norm(hidden)), self.rows)

    def injected(self, latent: Tensor) -> Tensor:
        """What a latent `[batch, channel, step]` adds to the features."""
        channels = latent.shape[1] // self.rows
        return cast(Tensor, self.inject(latent.reshape(len(latent), channels, -1)))


def conditioned_blocks(config: ModelConfig, count: int, context_channels: int) -> nn.ModuleList:
    """ConvNeXt blocks of the VAE's width under its conditioning."""
    dilations = config.vae.dilations
    return nn.ModuleList(
        ConvNeXtBlock(
            config.vae.width,
            config.vae.expansion,
            config.vae.kernel_size,
            context_channels,
            rows=config.vae.rows,
            dilation=dilations[index % len(dilations)],
        )
        for index in range(count)
    )
