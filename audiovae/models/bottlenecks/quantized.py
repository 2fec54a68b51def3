"""The quantized bottleneck: rounding at test time, uniform noise in training.

With q(z|x) = U(mu - 1/2, mu + 1/2) and a prior that is a Gaussian convolved with that same
uniform, the KL term of the ELBO is the length of the code that an entropy coder writes for the
rounded residual (Balle et al., 2018, arXiv:1802.01436; Duan et al., QRes-VAE, 2023,
arXiv:2208.13056). The residual r = round(mu - prior mean) is what is coded: it has zero mean, so
the prior mean is only added and never enters the coder. The prior scale enters it as the index of
a row of integer frequencies, the `FrequencyTable`, which is stored with the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiovae.config import BottleneckConfig
from audiovae.errors import CheckpointError
from audiovae.models.bottlenecks import LatentSample, gaussian_noise_like

FREQUENCY_BITS = 24
"""Every row of frequencies sums to 2 to this power: the precision of the range coder."""
_INITIAL_LOG_SCALE_ABOVE_MIN = 2.4  # starts the prior scale near 1 when min_scale is 0.08
_MIN_LIMIT = 16  # largest residual that the narrowest rows can code
_LIMIT_DEVIATIONS = 8.0  # a cell this far out has a probability below 1e-15


@dataclass(frozen=True)
class ResidualPrior:
    """Prior of one group: `latent = mean + residual`, residual ~ N(0, exp(log_scale)) * U."""

    mean: Tensor
    log_scale: Tensor


class Bottleneck:
    """Rounded residuals under a conditional Gaussian prior."""

    posterior_parameters = 1
    prior_parameters = 2

    def __init__(self, config: BottleneckConfig) -> None:
        """Keep the range of prior scales."""
        self._min_log_scale = math.log(config.min_scale)
        self._max_log_scale = math.log(config.max_scale)

    def split_prior(self, prior: Tensor) -> ResidualPrior:
        """Raw prior features `[batch, 2 * channel, step]` to mean and log scale.

        The softplus keeps a gradient where a hard lower bound would stop it.
        """
        mean, raw_scale = prior.float().chunk(2, dim=1)
        above_min = functional.softplus(raw_scale + _INITIAL_LOG_SCALE_ABOVE_MIN)
        log_scale = (self._min_log_scale + above_min).clamp(max=self._max_log_scale)
        return ResidualPrior(mean, log_scale)

    def draw(
        self, posterior: Tensor, prior: Tensor, generator: torch.Generator | None
    ) -> LatentSample:
        """Add uniform noise of one quantisation step; bits are differentiable."""
        prior_of_residual = self.split_prior(prior)
        mu = posterior.float()
        noise = torch.rand(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype) - 0.5
        residual = mu + noise - prior_of_residual.mean
        bits = residual_bits(residual, prior_of_residual.log_scale)
        return LatentSample(prior_of_residual.mean + residual, bits)

    def settle(self, posterior: Tensor, prior: Tensor) -> LatentSample:
        """Round the residual to whole steps; bits are those of an ideal entropy coder."""
        prior_of_residual = self.split_prior(prior)
        residual = torch.round(posterior.float() - prior_of_residual.mean)
        bits = residual_bits(residual, prior_of_residual.log_scale)
        return LatentSample(prior_of_residual.mean + residual, bits)

    def generate(
        self, prior: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draw a rounded residual from the prior and add the prior mean."""
        prior_of_residual = self.split_prior(prior)
        deviation = temperature * prior_of_residual.log_scale.exp()
        noise = gaussian_noise_like(deviation, generator) * deviation
        uniform = torch.rand(noise.shape, generator=generator, device=noise.device) - 0.5
        return prior_of_residual.mean + torch.round(noise + temperature * uniform)


def residual_bits(residual: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log2 of the probability of a cell of width 1 around the residual.

    Works on the tail's side with log-CDFs, so that it stays finite and differentiable many
    deviations out.
    """
    inverse_scale = torch.exp(-log_scale)
    distance = residual.abs()
    upper = torch.special.log_ndtr((0.5 - distance) * inverse_scale)
    lower = torch.special.log_ndtr((-0.5 - distance) * inverse_scale)
    log_probability = upper + torch.log1p(-torch.exp((lower - upper).clamp(max=-1e-6)))
    return log_probability * (-1.0 / math.log(2.0))


@dataclass(frozen=True, eq=False)
class FrequencyTable:
    """Integer frequencies of the residuals, one row for each prior scale.

    Row i is for the scale `exp(min_log_scale + i * log_step)` and holds the frequencies of the
    residuals -R, ..., R, with a limit R of its own; each is at least 1 and a row sums to
    `2 ** FREQUENCY_BITS`. It is made once and stored with the model, because two machines'
    floating point need not agree on the last unit of a probability.

    Attributes:
        min_log_scale: Natural log of the first row's scale.
        log_step: Distance of neighbouring rows in natural log.
        frequencies: All rows, one after the other.
        offsets: `[row + 1]`; row i is `frequencies[offsets[i]:offsets[i + 1]]`.
    """

    min_log_scale: float
    log_step: float
    frequencies: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def build(cls, config: BottleneckConfig) -> FrequencyTable:
        """Compute the table of a new model: cells of a Gaussian convolved with a uniform."""
        min_log_scale, log_step = _scale_grid(config)
        rows = [
            _row_frequencies(math.exp(min_log_scale + index * log_step))
            for index in range(config.scale_table_size)
        ]
        offsets = np.cumsum([0] + [len(row) for row in rows], dtype=np.int64)
        return cls(min_log_scale, log_step, np.concatenate(rows), offsets)

    @classmethod
    def from_tensors(
        cls, config: BottleneckConfig, tensors: Mapping[str, Tensor]
    ) -> FrequencyTable:
        """Take the table that `tensors()` gave and a model file stored.

        Raises:
            CheckpointError: If it is not a table of this configuration.
        """
        frequencies = tensors["frequencies"].numpy().astype(np.int32)
        offsets = tensors["offsets"].numpy().astype(np.int64)
        if not _is_table(frequencies, offsets, config.scale_table_size):
            raise CheckpointError(
                f"expected {config.scale_table_size} rows of frequencies that sum to "
                f"2^{FREQUENCY_BITS}, got a damaged table; copy the model file again"
            )
        return cls(*_scale_grid(config), frequencies, offsets)

    def tensors(self) -> dict[str, Tensor]:
        """What a model file stores."""
        return {
            "frequencies": torch.from_numpy(self.frequencies),
            "offsets": torch.from_numpy(self.offsets),
        }

    @property
    def num_rows(self) -> int:
        """Number of scales."""
        return len(self.offsets) - 1

    def row(self, index: int) -> NDArray[np.int32]:
        """Frequencies of the residuals -R, ..., R of one scale."""
        return self.frequencies[self.offsets[index] : self.offsets[index + 1]]

    def limits(self) -> NDArray[np.int64]:
        """`[row]`: the largest residual R of each scale."""
        return np.diff(self.offsets) // 2


def _scale_grid(config: BottleneckConfig) -> tuple[float, float]:
    """Log of the smallest scale, and the step of the table, evenly spaced in the log."""
    low, high = math.log(config.min_scale), math.log(config.max_scale)
    return low, (high - low) / (config.scale_table_size - 1)


def _row_frequencies(scale: float) -> NDArray[np.int32]:
    """Integer frequencies of -R, ..., R; the outermost cells hold the tails."""
    limit = max(_MIN_LIMIT, math.ceil(_LIMIT_DEVIATIONS * scale - 1e-6))
    total = 1 << FREQUENCY_BITS
    free = total - (2 * limit + 1)  # what is left when every residual has its one
    # upper[k] is the mass beyond k + 1/2; erfc keeps its precision far out.
    upper = [0.5 * math.erfc((k + 0.5) / (scale * math.sqrt(2.0))) for k in range(limit)]
    cells = [upper[k] - upper[k + 1] for k in range(limit - 1)] + [upper[limit - 1]]
    side = [1 + math.floor(free * cell) for cell in cells]
    return np.array([*reversed(side), total - 2 * sum(side), *side], dtype=np.int32)


def _is_table(frequencies: NDArray[np.int32], offsets: NDArray[np.int64], num_rows: int) -> bool:
    if frequencies.ndim != 1 or offsets.shape != (num_rows + 1,):
        return False
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(frequencies) or (lengths < 3).any():
        return False
    sums = np.add.reduceat(frequencies.astype(np.int64), offsets[:-1])
    whole = (lengths % 2 == 1).all() and (sums == 1 << FREQUENCY_BITS).all()
    return bool(whole and (frequencies >= 1).all())
