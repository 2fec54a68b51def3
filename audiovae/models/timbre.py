"""The timbre code: one vector for a whole clip that says how it sounds, not what is played.

    log_mel at one level -> strided ConvNeXt blocks -> attentive statistics -> N(mean, deviation)

Attentive mean and deviation over time (Okabe et al., 2018, arXiv:1803.10963) forget the order of
what they saw, and the level is taken out first, so neither melody nor loudness fits in easily;
training takes the code from another phrase than the content, which takes away the reason to try.
The decoder meets the code behind its last latent group: the latents themselves never depend on
it, so another timbre is another decode of the same latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.config import ModelConfig, TimbreConfig
from audiovae.errors import ShapeError
from audiovae.latents import Conditions
from audiovae.models.blocks import ChannelNorm, ConvNeXtBlock, Downsample, step_mask
from audiovae.models.bottlenecks import gaussian_noise_like

REFERENCE_LEVEL = -4.0
"""Root mean square of a log-mel's magnitudes that the encoder hears every clip at, natural log."""
_STRIDES = (2, 4)
_LOG_DEVIATION_LIMIT = 6.0
_MIN_VARIANCE = 1e-5


@dataclass(frozen=True)
class TimbrePosterior:
    """What is known of the code of each clip of a batch: a diagonal Gaussian.

    Attributes:
        mean: `[batch, channel]`.
        log_deviation: `[batch, channel]`, natural log.
    """

    mean: Tensor
    log_deviation: Tensor

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """A code `[batch, channel]`, reparameterised."""
        return self.mean + self.log_deviation.exp() * gaussian_noise_like(self.mean, generator)

    def nats(self) -> Tensor:
        """`[batch]`: KL divergence from the standard normal."""
        variance = torch.exp(2 * self.log_deviation)
        return (0.5 * (self.mean.square() + variance - 1) - self.log_deviation).sum(dim=1)


class TimbreEncoder(nn.Module):
    """Log-mel to the code's posterior, and the code to what the decoder's blocks are told."""

    def __init__(self, timbre: TimbreConfig, config: ModelConfig) -> None:
        """Build the networks of `timbre` beside the VAE of `config`; weights are random."""
        super().__init__()
        self.channels = timbre.channels
        self.context_channels = timbre.context_channels
        inputs = (config.spectrogram.num_mels, timbre.width)
        self.down = nn.ModuleList(
            Downsample(channels, timbre.width, stride)
            for channels, stride in zip(inputs, _STRIDES, strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                ConvNeXtBlock(timbre.width, config.vae.expansion, config.vae.kernel_size)
                for _ in range(timbre.blocks)
            )
            for _ in _STRIDES
        )
        self.norm = ChannelNorm(timbre.width)
        self.attention = nn.Conv1d(timbre.width, timbre.width, 1)
        self.posterior = nn.Sequential(
            nn.LayerNorm(2 * timbre.width), nn.Linear(2 * timbre.width, 2 * timbre.channels)
        )
        self.layers = nn.Sequential(
            nn.Linear(timbre.channels, timbre.context_channels),
            nn.GELU(approximate="tanh"),
            nn.Linear(timbre.context_channels, timbre.context_channels),
        )

    def forward(self, standardised: Tensor, num_frames: Tensor) -> TimbrePosterior:
        """Posterior of the code of each clip.

        Args:
            standardised: `[batch, mel, frame]`, log-mel at the reference level in deviations
                from the training data's mean; `frame` a multiple of 8.
            num_frames: `[batch]`; frames beyond these are padding and are ignored.
        """
        frames, stride = standardised.shape[2], 1
        mask = step_mask(num_frames, frames, stride)
        features = standardised * mask
        for step, down, blocks in zip(_STRIDES, self.down, self.blocks, strict=True):
            stride *= step
            mask = step_mask(num_frames, frames // stride, stride)
            features = down(features, mask)
            for block in cast(nn.ModuleList, blocks):
                features = block(features, mask)
        pooled = self._pool(self.norm(features), mask)
        mean, raw = self.posterior(pooled).float().chunk(2, dim=1)
        log_deviation = _LOG_DEVIATION_LIMIT * torch.tanh(raw / _LOG_DEVIATION_LIMIT)
        return TimbrePosterior(mean, log_deviation)

    def context(self, conditions: Conditions) -> Tensor:
        """`[batch, channel]`: what the decoder's blocks are told of the code.

        Raises:
            ShapeError: If there is no code of this model's size.
        """
        code = conditions.timbre
        if code is None or code.ndim != 2 or code.shape[1] != self.channels:
            got = None if code is None else list(code.shape)
            raise ShapeError(
                f"expected conditions.timbre [batch, {self.channels}] for this model, got {got}; "
                "take it from encode() or timbre_of()"
            )
        return cast(Tensor, self.layers(code))

    def _pool(self, features: Tensor, mask: Tensor) -> Tensor:
        """Attentive mean and deviation over time: `[batch, 2 * channel]`."""
        features, mask = features.float(), mask.float()
        scores = self.attention(features).float().masked_fill(mask == 0, -torch.inf)
        weights = torch.softmax(scores, dim=2)  # [batch, channel, step]
        mean = (weights * features).sum(dim=2)
        variance = (weights * features.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp(min=_MIN_VARIANCE).sqrt()], dim=1)


def at_reference_level(log_mel: Tensor, num_frames: Tensor) -> Tensor:
    """Shift each clip so that its loud parts lie at `REFERENCE_LEVEL`.

    Args:
        log_mel: `[batch, mel, frame]`, natural log of magnitude.
        num_frames: `[batch]`; frames beyond these do not count.
    """
    mask = step_mask(num_frames, log_mel.shape[2], 1)  # [batch, 1, frame]
    cells = mask.sum(dim=(1, 2), keepdim=True) * log_mel.shape[1]
    power = (torch.exp(2 * log_mel) * mask).sum(dim=(1, 2), keepdim=True) / cells
    return log_mel + REFERENCE_LEVEL - 0.5 * power.log()
