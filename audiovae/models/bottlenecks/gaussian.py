"""The classical bottleneck: a diagonal Gaussian posterior, reparameterised.

Kingma and Welling, 2014 (arXiv:1312.6114); in the hierarchy the posterior mean is expressed as a
distance from the prior's, in prior deviations (the residual normals of NVAE, Vahdat and Kautz,
2020, arXiv:2007.03898), so that a group that carries nothing costs nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audiovae.config import BottleneckConfig
from audiovae.models.bottlenecks import LatentSample, gaussian_noise_like

_LOG_SCALE_LIMIT = 6.0  # keeps exp() of a diverging network finite, softly: a gradient remains


class Bottleneck:
    """Reparameterised Gaussians with the KL divergence in closed form."""

    has_rate = True

    def __init__(self, config: BottleneckConfig, channels: int) -> None:
        """Nothing to configure: mean and log scale of each channel."""
        self.posterior_channels = self.prior_channels = 2 * channels

    def draw(
        self,
        posterior: Tensor,
        prior: Tensor,
        _mask: Tensor,
        generator: torch.Generator | None,
    ) -> LatentSample:
        """Draw `mean + scale * noise` from the posterior."""
        prior_mean, prior_log_scale = _mean_and_log_scale(prior)
        shift, log_ratio = _mean_and_log_scale(posterior)
        deviation = prior_log_scale.exp()
        noise = gaussian_noise_like(shift, generator)
        latent = prior_mean + deviation * (shift + log_ratio.exp() * noise)
        return LatentSample(latent, _kl_bits(shift, log_ratio))

    def settle(self, posterior: Tensor, prior: Tensor) -> LatentSample:
        """Take the posterior mean."""
        prior_mean, prior_log_scale = _mean_and_log_scale(prior)
        shift, log_ratio = _mean_and_log_scale(posterior)
        latent = prior_mean + prior_log_scale.exp() * shift
        return LatentSample(latent, _kl_bits(shift, log_ratio))

    def generate(
        self, prior: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draw from the prior."""
        mean, log_scale = _mean_and_log_scale(prior)
        return mean + temperature * log_scale.exp() * gaussian_noise_like(mean, generator)


def _mean_and_log_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_scale = features.float().chunk(2, dim=1)
    return mean, _LOG_SCALE_LIMIT * torch.tanh(log_scale / _LOG_SCALE_LIMIT)


def _kl_bits(shift: Tensor, log_ratio: Tensor) -> Tensor:
    """KL( N(shift, ratio) || N(0, 1) ) in bits, elementwise."""
    nats = 0.5 * (shift.square() + torch.exp(2 * log_ratio) - 1.0) - log_ratio
    return nats / math.log(2.0)
