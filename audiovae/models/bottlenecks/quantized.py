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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiovae.config import BottleneckConfig
from audiovae.errors import CheckpointError
from audiovae.models.bottlenecks import BottleneckKind, LatentSample, gaussian_noise_like

FREQUENCY_BITS = 24
"""Every row of frequencies sums to 2 to this power: the precision of the range coder."""
_INITIAL_LOG_SCALE_ABOVE_MIN = 2.4  # starts the prior scale near 1 when min_scale is 0.08
_MIN_LIMIT = 16  # largest residual that the narrowest rows can code
_LIMIT_DEVIATIONS = 8.0  # a cell this far out has a probability below 1e-15
_INTEGRATION_POINTS = 400  # of the density of rows
_MIN_MASS = 1e-300
_MIN_BOUNDARY_DISTANCE = 1e-3  # in natural log; ties are found within 2e-4 of one boundary


@dataclass(frozen=True)
class ResidualPrior:
    """Prior of one group: `latent = mean + residual`, residual ~ N(0, exp(log_scale)) * U."""

    mean: Tensor
    log_scale: Tensor


class Bottleneck:
    """Rounded residuals under a conditional Gaussian prior."""

    has_rate = True

    def __init__(self, config: BottleneckConfig, channels: int) -> None:
        """Keep the range of prior scales."""
        self.posterior_channels, self.prior_channels = channels, 2 * channels
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
        self,
        posterior: Tensor,
        prior: Tensor,
        _mask: Tensor,
        generator: torch.Generator | None,
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
        # Rounding takes in the uniform that the prior is convolved with: none is added.
        residual = torch.round(gaussian_noise_like(deviation, generator) * deviation)
        return prior_of_residual.mean + residual


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
    bits: Tensor = log_probability * (-1.0 / math.log(2.0))
    return bits


@dataclass(frozen=True, eq=False)
class FrequencyTable:
    """Integer frequencies of the residuals, one row for each range of prior scales.

    A row is for a residual limit R of its own and holds the frequencies of -R, ..., R; each is at
    least 1 and a row sums to `2 ** FREQUENCY_BITS`. The table is made once and stored with the
    model, because two machines' floating point need not agree on the last unit of a probability.

    Attributes:
        boundaries: `[row - 1]`, ascending: natural log of the scales at which one row takes over
            from the next; row i is for log scales in `[boundaries[i - 1], boundaries[i])`.
        frequencies: All rows, one after the other.
        offsets: `[row + 1]`; row i is `frequencies[offsets[i]:offsets[i + 1]]`.
    """

    boundaries: NDArray[np.float64]
    frequencies: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def build(cls, config: BottleneckConfig) -> FrequencyTable:
        """Compute the table of a new model: cells of a Gaussian convolved with a uniform."""
        log_scales = _row_log_scales(config)
        rows = [_row_frequencies(math.exp(log_scale)) for log_scale in log_scales]
        return cls(
            boundaries=(log_scales[1:] + log_scales[:-1]) / 2,
            frequencies=np.concatenate(rows),
            offsets=np.cumsum([0] + [len(row) for row in rows], dtype=np.int64),
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FrequencyTable:
        """Take the table that `tensors()` gave and a model file stored.

        Raises:
            CheckpointError: If it is not a table.
        """
        try:
            table = cls(**{name: tensor.numpy() for name, tensor in tensors.items()})
        except TypeError:
            table = None
        if table is None or not table._is_sound():
            raise CheckpointError(
                f"expected rows of frequencies that sum to 2^{FREQUENCY_BITS}, got a damaged "
                "table; copy the model file again"
            )
        return table

    def tensors(self) -> dict[str, Tensor]:
        """What a model file stores."""
        return {name: torch.from_numpy(values) for name, values in vars(self).items()}

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

    def lowest(self) -> NDArray[np.int64]:
        """`[row]`: the smallest residual of each scale."""
        return -self.limits()

    def _is_sound(self) -> bool:
        types = [values.dtype.name for values in (self.boundaries, self.frequencies, self.offsets)]
        lengths = np.diff(self.offsets)
        if types != ["float64", "int32", "int64"] or self.boundaries.ndim != 1:
            return False
        if self.offsets.shape != (len(self.boundaries) + 2,) or self.frequencies.ndim != 1:
            return False
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.frequencies):
            return False
        if (lengths < 3).any() or (lengths % 2 == 0).any() or (self.frequencies < 1).any():
            return False
        sums = np.add.reduceat(self.frequencies.astype(np.int64), self.offsets[:-1])
        spread = np.diff(self.boundaries) >= _MIN_BOUNDARY_DISTANCE
        return bool((sums == 1 << FREQUENCY_BITS).all() and spread.all())


def table_of(config: BottleneckConfig, _groups: Sequence[BottleneckKind]) -> FrequencyTable:
    """The table of a new model: its settings say it all."""
    return FrequencyTable.build(config)


def table_from(tensors: Mapping[str, Tensor]) -> FrequencyTable:
    """The table that a model file stored."""
    return FrequencyTable.from_tensors(tensors)


def _row_log_scales(config: BottleneckConfig) -> NDArray[np.float64]:
    """Log of each row's scale: dense where a wrong scale costs bits, sparse where it hardly does.

    A scale that is off by d in the log costs about `J d^2 / 2` nats a symbol, J the Fisher
    information of the log scale: 2 for wide priors, 0.1 at a scale of 0.15, next to nothing at
    0.1, where all residuals are 0. Each boundary between rows also costs: a scale on it is a
    tie, which the encoder must write down. The two together are least where rows lie
    J^(-1/3) apart. In wide priors this is the usual even spacing in the log.
    """
    low, high = math.log(config.min_scale), math.log(config.max_scale)
    fine = np.linspace(low, high, _INTEGRATION_POINTS)
    density = np.array([_fisher_information(math.exp(at)) for at in fine]) ** (1 / 3)
    steps = (density[1:] + density[:-1]) / 2
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    even = np.linspace(0.0, cumulative[-1], config.scale_table_size)
    return np.interp(even, cumulative, fine)


def _fisher_information(scale: float) -> float:
    """Of the log scale, for a rounded residual: the sum of (dP / d log scale)^2 / P."""
    mass, slope = _cells(scale)
    used = mass > _MIN_MASS
    both_sides = np.where(np.arange(len(mass)) == 0, 1.0, 2.0)
    return float(np.sum(both_sides[used] * slope[used] ** 2 / mass[used]))


def _cells(scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of the residuals 0, ..., R, and its derivative by log scale; R has the tail."""
    limit = max(_MIN_LIMIT, math.ceil(_LIMIT_DEVIATIONS * scale - 1e-6))
    edges = (np.arange(limit) + 0.5) / scale
    # Beyond each edge; erfc keeps its precision far out.
    beyond = np.array([0.5 * math.erfc(edge / math.sqrt(2.0)) for edge in edges] + [0.0])
    slope_beyond = np.append(edges * np.exp(-(edges**2) / 2) / math.sqrt(2.0 * math.pi), 0.0)
    mass = np.concatenate([[1.0 - 2.0 * beyond[0]], beyond[:-1] - beyond[1:]])
    slope = np.concatenate([[-2.0 * slope_beyond[0]], slope_beyond[:-1] - slope_beyond[1:]])
    return mass, slope


def _row_frequencies(scale: float) -> NDArray[np.int32]:
    """Integer frequencies of -R, ..., R: one each, and the rest by probability, rounded down."""
    mass, _ = _cells(scale)
    total = 1 << FREQUENCY_BITS
    free = total - (2 * len(mass) - 1)
    side = 1 + np.floor(free * mass[1:]).astype(np.int32)
    centre = total - 2 * int(side.sum())
    return np.concatenate([side[::-1], [centre], side]).astype(np.int32)
