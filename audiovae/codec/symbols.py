"""Where floats become integers, and the only place where they do.

A latent is `prior mean + residual`, and the residual is whole: the encoder rounds, the decoder
only adds, so a decoder whose mean is off in its last bits decodes the same residual. The prior
scale picks a row of the frequency table. There two machines could disagree: where the scale lies
on the boundary between two rows. The encoder finds these ties (within `TIE_MARGIN` in the log),
takes the row above the boundary, and lists their positions; there the decoder takes the row above
the boundary that is nearest to its own scale.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.errors import CheckpointError
from audiovae.models.bottlenecks import LatentSample
from audiovae.models.bottlenecks.quantized import (
    Bottleneck,
    FrequencyTable,
    ResidualPrior,
    residual_bits,
)

TIE_MARGIN = 5e-5
"""Largest relative difference of a prior scale between encoder and decoder that is made good."""
Integers = NDArray[np.int32]
Positions = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupSymbols:
    """The integers of one latent group of one chunk, `[channel, step]` flattened, signal only.

    Attributes:
        residuals: What is coded.
        indices: Under which row of the frequency table.
        ties: Ascending positions at which the row was a tie.
    """

    residuals: Integers
    indices: Integers
    ties: Positions


def rows_of(table: FrequencyTable, log_scale: Floats) -> Integers:
    """Row of the table for each scale."""
    above, boundary = _nearest_boundary(table, log_scale)
    return above - (log_scale < boundary)


def rows_and_ties(
    table: FrequencyTable, log_scale: Floats, margin: float = TIE_MARGIN
) -> tuple[Integers, Positions]:
    """Encoder: the row of each scale `[symbol]`, and the ascending positions of ties."""
    above, boundary = _nearest_boundary(table, log_scale)
    distance = boundary - log_scale
    rows = above - (distance >= margin)
    return rows, np.flatnonzero(np.abs(distance) < margin)


def rows_at_ties(table: FrequencyTable, log_scale: Floats, ties: Positions) -> Integers:
    """Decoder: the row of each scale `[symbol]`, given the encoder's ties."""
    above, boundary = _nearest_boundary(table, log_scale)
    rows = above - (log_scale < boundary)
    rows[ties] = above[ties]
    return rows


def quantise(
    bottleneck: Bottleneck,
    table: FrequencyTable,
    posterior: Tensor,
    prior: Tensor,
    valid_steps: list[int],
) -> tuple[LatentSample, list[GroupSymbols]]:
    """Encoder: the latent of one group, and the integers that stand for it.

    Args:
        bottleneck: Of the model.
        table: Of the model.
        posterior: `[batch, channel, step]`, raw.
        prior: `[batch, 2 * channel, step]`, raw.
        valid_steps: Steps of each item that cover signal; beyond them the residual is 0.

    Returns:
        The latent with the model's own estimate of its bits, and the integers of each item.
    """
    of_residual = bottleneck.split_prior(prior)
    difference = posterior.float() - of_residual.mean
    if not bool(torch.isfinite(difference).all()):
        raise CheckpointError(
            "expected finite latents, got NaN or infinity; the model's weights are broken: "
            "copy the model file again or use another"
        )
    rounded = torch.round(difference).cpu().numpy()  # [batch, channel, step]
    log_scale = exact(of_residual.log_scale)
    limits = table.limits()
    residuals = np.zeros(rounded.shape, dtype=np.int32)
    symbols = []
    for row, steps in enumerate(valid_steps):
        indices, ties = rows_and_ties(table, log_scale[row, :, :steps].ravel())
        limit = limits[indices]
        clipped = np.clip(rounded[row, :, :steps].ravel(), -limit, limit).astype(np.int32)
        residuals[row, :, :steps] = clipped.reshape(-1, steps)
        symbols.append(GroupSymbols(clipped, indices, ties))
    residual = torch.from_numpy(residuals).to(of_residual.mean)
    bits = residual_bits(residual, of_residual.log_scale)
    return LatentSample(of_residual.mean + residual, bits), symbols


def exact(values: Tensor) -> Floats:
    """The same numbers as float64 on the CPU."""
    return values.detach().cpu().double().numpy()


def restore(of_residual: ResidualPrior, residuals: Integers, mask: Tensor) -> Tensor:
    """Decoder: the latent `[batch, channel, step]` of decoded residuals of the same shape."""
    return (of_residual.mean + torch.from_numpy(residuals).to(of_residual.mean)) * mask


def symbols_crc(residuals: Integers, crc: int = 0) -> int:
    """CRC-32 of residuals as 32-bit little-endian integers, continued from `crc`."""
    return zlib.crc32(residuals.astype("<i4").tobytes(), crc)


def _nearest_boundary(table: FrequencyTable, log_scale: Floats) -> tuple[Integers, Floats]:
    """The row above the boundary nearest to each scale, and that boundary."""
    halfway = (table.boundaries[1:] + table.boundaries[:-1]) / 2
    nearest = np.searchsorted(halfway, log_scale, side="right").astype(np.int32)
    return nearest + np.int32(1), table.boundaries[nearest]
