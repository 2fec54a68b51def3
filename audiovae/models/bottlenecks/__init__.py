"""How features become latents: one module a kind, found by its name.

A bottleneck turns the posterior's and the prior's raw features of one latent group into a latent
and its cost in bits. A new kind is one module here with a class `Bottleneck`.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiovae.config import BottleneckConfig
from audiovae.errors import ConfigError


@dataclass(frozen=True)
class LatentSample:
    """One latent group.

    Attributes:
        latent: `[batch, channel, step]`.
        bits: `[batch, channel, step]`, the KL term of the ELBO in bits.
    """

    latent: Tensor
    bits: Tensor


class BottleneckKind(Protocol):
    """What the hierarchy asks of a bottleneck."""

    posterior_parameters: int
    """Posterior channels for each latent channel."""
    prior_parameters: int
    """Prior channels for each latent channel."""

    def draw(
        self, posterior: Tensor, prior: Tensor, generator: torch.Generator | None
    ) -> LatentSample:
        """Draw from the posterior as training needs it (with gradients)."""
        ...

    def settle(self, posterior: Tensor, prior: Tensor) -> LatentSample:
        """Choose the latent without noise, as encoding needs it."""
        ...

    def generate(
        self, prior: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draw from the prior; `temperature` scales its deviation."""
        ...


def bottleneck_kinds() -> list[str]:
    """Names that `kind` can take."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_bottleneck(config: BottleneckConfig) -> BottleneckKind:
    """Make the bottleneck that `config.kind` names.

    Raises:
        ConfigError: If no module of that name exists.
    """
    if config.kind not in bottleneck_kinds():
        raise ConfigError(
            f"expected bottleneck.kind to be one of {', '.join(bottleneck_kinds())}, "
            f"got '{config.kind}'"
        )
    module = importlib.import_module(f"{__name__}.{config.kind}")
    bottleneck: BottleneckKind = module.Bottleneck(config)
    return bottleneck


def gaussian_noise_like(reference: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the reference's shape, device and type."""
    return torch.randn(
        reference.shape, generator=generator, device=reference.device, dtype=reference.dtype
    )
