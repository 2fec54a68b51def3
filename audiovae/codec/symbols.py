"""Where floats become integers, and the only place where they do.

A latent is `prior mean + residual`, and the residual is whole: the encoder rounds, the decoder
only adds, so a decoder whose mean is off in its last bits decodes the same residual. The prior
scale picks a row of the frequency table. There two machines could disagree: where the scale lies
on the boundary between two rows. So near a boundary the decoder does not trust its own scale but
asks which row it was, and the encoder has written the answer wherever a decoder may ask:

    decoder asks         |<- margin -> boundary <- margin ->|
    encoder answers  |<- 2 margins ---> boundary <--- 2 margins ->|

Scales that differ by less than the margin, in the log, then always pick the same row.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
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
    residual_bits,
)

TIE_MARGIN = 1e-4
"""Largest difference of a log scale between encoder and decoder that is made good.

Measured on a trained model: threads, vector units, batch and padding move log scales by 2e-6 at
most; noise of 1e-5 on every mean and scale of the decoder by 2e-5.
"""
Integers = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupSymbols:
    """The integers of one latent group of one chunk, `[channel, step]` flattened, signal only.

    Attributes:
        symbols: What is coded: residuals, or the indices of one stage of a vq model.
        rows: Under which row of the frequency table.
        ties: Questions that a decoder may ask, and their answers. With residuals a question is
            the place of a symbol: whether its row is the upper one.
    """

    symbols: Integers
    rows: Integers
    ties: dict[int, bool]


def rows_and_ties(table: FrequencyTable, log_scale: Floats) -> tuple[Integers, dict[int, bool]]:
    """Encoder: the row of each scale `[symbol]`, and the answers to what a decoder may ask."""
    above, distance = _nearest_boundary(table, log_scale)
    places = np.flatnonzero(np.abs(distance) < 2 * TIE_MARGIN)
    ties = zip(places.tolist(), (distance[places] >= 0).tolist(), strict=True)
    return above - (distance < 0), dict(ties)


def rows_asking(
    table: FrequencyTable, log_scale: Floats, is_upper: Callable[[int], bool]
) -> Integers:
    """Decoder: the row of each scale `[symbol]`; `is_upper(place)` is what the encoder answers."""
    above, distance = _nearest_boundary(table, log_scale)
    rows = above - (distance < 0)
    for place in np.flatnonzero(np.abs(distance) < TIE_MARGIN).tolist():
        rows[place] = above[place] - (not is_upper(place))
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
        valid_steps: Steps of each item that cover signal; beyond them the residual is 0, as it is
            in all of the items behind those.

    Returns:
        The latent with the model's own estimate of its bits, and the integers of those items.
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
        rows, ties = rows_and_ties(table, log_scale[row, :, :steps].ravel())
        limit = limits[rows]
        clipped = np.clip(rounded[row, :, :steps].ravel(), -limit, limit).astype(np.int32)
        residuals[row, :, :steps] = clipped.reshape(-1, steps)
        symbols.append(GroupSymbols(clipped, rows, ties))
    residual = torch.from_numpy(residuals).to(of_residual.mean)
    bits = residual_bits(residual, of_residual.log_scale)
    return LatentSample(of_residual.mean + residual, bits), symbols


def exact(values: Tensor) -> Floats:
    """The same numbers as float64 on the CPU."""
    return values.detach().cpu().double().numpy()


def symbols_crc(symbols: Integers, crc: int = 0) -> int:
    """CRC-32 of symbols as 32-bit little-endian integers, continued from `crc`."""
    return zlib.crc32(symbols.astype("<i4").tobytes(), crc)


def _nearest_boundary(table: FrequencyTable, log_scale: Floats) -> tuple[Integers, Floats]:
    """The row above the boundary nearest to each scale, and how far the scale is above it."""
    halfway = (table.boundaries[1:] + table.boundaries[:-1]) / 2
    nearest = np.searchsorted(halfway, log_scale, side="right").astype(np.int32)
    return nearest + np.int32(1), log_scale - table.boundaries[nearest]
