"""Quality conditioning: the network is told the trade-off lambda, so one model serves every rate.

Variable-rate coding by conditioning on lambda as in QARV (Duan et al., 2023, arXiv:2302.08899).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from audiovae.config import QualityConfig
from audiovae.errors import ShapeError
from audiovae.latents import Conditions
from audiovae.models.conditioning.base import Conditioning

_NUM_FREQUENCIES = 16


class QualityConditioning(Conditioning):
    """Fourier features of log lambda through a small MLP."""

    frequencies: Tensor

    def __init__(self, config: QualityConfig) -> None:
        """Scale log lambda so that the configured range becomes [0, 1]."""
        super().__init__()
        self.context_channels = config.embedding_channels
        self._low = math.log(config.min_lambda)
        self._span = max(math.log(config.max_lambda) - self._low, 1e-6)
        frequencies = torch.logspace(-1, 1, _NUM_FREQUENCIES) * math.pi
        self.register_buffer("frequencies", frequencies)
        self.layers = nn.Sequential(
            nn.Linear(2 * _NUM_FREQUENCIES + 1, config.embedding_channels),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.embedding_channels, config.embedding_channels),
            nn.GELU(approximate="tanh"),
        )

    def forward(self, conditions: Conditions) -> Tensor:
        """`conditions.log_lambda` `[batch]` to the context `[batch, channel]`."""
        if conditions.log_lambda is None:
            raise ShapeError("expected conditions.log_lambda [batch] for this model, got None")
        position = ((conditions.log_lambda - self._low) / self._span)[:, None]
        angles = position * self.frequencies
        features = torch.cat([position, angles.sin(), angles.cos()], dim=1)
        context: Tensor = self.layers(features)
        return context
