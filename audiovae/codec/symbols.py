"""Where floats become integers, and the only place where they do.

A latent is `prior mean + residual`, and the residual is whole: the encoder rounds, the decoder
only adds, so a decoder whose mean is off in its last bits decodes the same residual. The prior
scale picks a row of the frequency table, the nearest in the log domain. There two machines could
disagree: where the scale lies within `TIE_MARGIN` of the boundary between two rows. The encoder
finds these ties, always takes the upper row, and lists their positions; the decoder takes the row
above its own side of the boundary there, and the nearest one everywhere else.
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
from audiovae.models.bottlenecks.quantized import Bottleneck, FrequencyTable, residual_bits

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


def nearest_rows(table: FrequencyTable, log_scale: Floats) -> Integers:
    """Row of the table nearest to each scale."""
    nearest = np.floor(_row_position(table, log_scale) + 0.5)
    return np.clip(nearest, 0, table.num_rows - 1).astype(np.int32)


def rows_and_ties(
    table: FrequencyTable, log_scale: Floats, margin: float = TIE_MARGIN
) -> tuple[Integers, Positions]:
    """Encoder: the row of each scale `[symbol]`, and the ascending positions of ties."""
    position = _row_position(table, log_scale)
    below = np.floor(position)
    distance = np.abs(position - below - 0.5) * table.log_step
    is_tie = (distance < margin) & (below >= 0) & (below < table.num_rows - 1)
    rows = np.where(is_tie, below + 1, nearest_rows(table, log_scale)).astype(np.int32)
    return rows, np.flatnonzero(is_tie).astype(np.int64)


def rows_at_ties(table: FrequencyTable, log_scale: Floats, ties: Positions) -> Integers:
    """Decoder: the row of each scale `[symbol]`, given the encoder's ties."""
    rows = nearest_rows(table, log_scale)
    above = np.floor(_row_position(table, log_scale[ties])) + 1
    rows[ties] = np.clip(above, 0, table.num_rows - 1).astype(np.int32)
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
    log_scale = _exact(of_residual.log_scale)
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


def prior_log_scale(bottleneck: Bottleneck, prior: Tensor) -> Floats:
    """Decoder: `[batch, channel, step]` log prior scales of one group."""
    return _exact(bottleneck.split_prior(prior).log_scale)


def restore(bottleneck: Bottleneck, prior: Tensor, residuals: Integers, mask: Tensor) -> Tensor:
    """Decoder: the latent `[batch, channel, step]` of decoded residuals of the same shape."""
    mean = bottleneck.split_prior(prior).mean
    return (mean + torch.from_numpy(residuals).to(mean)) * mask


def symbols_crc(residuals: Integers, crc: int = 0) -> int:
    """CRC-32 of residuals as 32-bit little-endian integers, continued from `crc`."""
    return zlib.crc32(residuals.astype("<i4").tobytes(), crc)


def _row_position(table: FrequencyTable, log_scale: Floats) -> Floats:
    """Scale in units of the table's rows; NaN (broken weights) becomes row 0."""
    return np.nan_to_num((log_scale - table.min_log_scale) / table.log_step)


def _exact(values: Tensor) -> Floats:
    return values.detach().cpu().double().numpy()
