"""The deterministic autoencoder: a latent is what the encoder says, and nothing is uncertain.

The contrast to all the others: no posterior, no rate, no reason for codes to be anything in
particular. As in the other kinds, a latent is a prediction from above plus a residual. To sample
such a model, a distribution must be fitted to its codes afterwards (Ghosh et al., 2020,
arXiv:1903.12436); here it is a diagonal Gaussian of the residuals, kept as a running average.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovae.config import BottleneckConfig
from audiovae.models.bottlenecks import LatentSample, gaussian_noise_like

_DECAY = 0.99


class Bottleneck(nn.Module):
    """Residuals as they are, and how far they usually reach."""

    has_rate = False
    residual_mean: Tensor
    residual_square: Tensor

    def __init__(self, config: BottleneckConfig, channels: int) -> None:
        """Begin with the standard normal distribution; there is nothing to configure."""
        super().__init__()
        self.posterior_channels = self.prior_channels = channels
        self.register_buffer("residual_mean", torch.zeros(channels))
        self.register_buffer("residual_square", torch.ones(channels))

    def draw(
        self,
        posterior: Tensor,
        prior: Tensor,
        mask: Tensor,
        generator: torch.Generator | None,
    ) -> LatentSample:
        """Take the residual as it is; while training, remember its moments."""
        if self.training:
            self._remember(posterior.detach().float(), mask)
        return self.settle(posterior, prior)

    def settle(self, posterior: Tensor, prior: Tensor) -> LatentSample:
        """Take the residual as it is."""
        residual = posterior.float()
        return LatentSample(prior.float() + residual, torch.zeros_like(residual))

    def generate(
        self, prior: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draw a residual from the fitted Gaussian."""
        mean = prior.float() + self.residual_mean[:, None]
        variance = (self.residual_square - self.residual_mean.square()).clamp(min=0)
        noise = gaussian_noise_like(mean, generator)
        return mean + temperature * variance.sqrt()[:, None] * noise

    @torch.no_grad()
    def _remember(self, residual: Tensor, mask: Tensor) -> None:
        steps = mask.sum().clamp(min=1)
        mean = (residual * mask).sum(dim=(0, 2)) / steps
        square = (residual.square() * mask).sum(dim=(0, 2)) / steps
        self.residual_mean.lerp_(mean, 1 - _DECAY)
        self.residual_square.lerp_(square, 1 - _DECAY)
