"""Gains: how much stronger a sound is than its decode, for bands of mel and blocks of time.

A VAE that minimises an absolute error of log-mel decodes what it is unsure of near the median of
what it could be, which is quieter than its mean power; and a sound unlike the training data may
come back far too quiet. A gain for every 16 mel bands and 0.37 s costs some 30 bits a second,
and the loudness is right again. (Shape and gain coded apart: Gersho and Gray, 1992, Vector
Quantization and Signal Compression, section 12.10.)

Gains live at the middles of their bands and blocks; between them they go over linearly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.codec.integers import ByteReader
from audiovae.codec.symbols import Integers
from audiovae.errors import BitstreamError
from audiovae.models.bottlenecks.quantized import FREQUENCY_BITS
from audiovae.models.code_table import CodeTable

NUM_BANDS = 8
BLOCK_FRAMES = 32
STEP_NATS = 0.25
NUM_ROWS = 16
_POWER = 1.5
"""Gains match the sum of magnitude to this power: 1 favours spectral distance, 2 loudness."""
_LIMIT = 31  # steps: 67 dB
_LARGEST_SYMBOL = 2 * _LIMIT + 1


def num_blocks(num_frames: int) -> int:
    """Blocks of a chunk; they are equally long."""
    return max(1, -(-num_frames // BLOCK_FRAMES))


def measure_gains(log_mel: Tensor, decoded: Tensor) -> Integers:
    """Gains that bring a decode to the strength of the sound.

    Args:
        log_mel: `[mel, frame]`, natural log of magnitude.
        decoded: The same of the decode.

    Returns:
        `[band, block]`, in steps of `STEP_NATS`.
    """
    in_bands, in_blocks = _places(decoded)
    sums = [
        in_bands @ (_POWER * values.double()).exp() @ in_blocks.T for values in (log_mel, decoded)
    ]
    nats = (sums[0] / sums[1]).log() / _POWER
    steps = (nats / STEP_NATS).round().clamp(-_LIMIT, _LIMIT)
    return steps.cpu().numpy().astype(np.int32)


def apply_gains(decoded: Tensor, gains: Integers) -> Tensor:
    """The decode `[mel, frame]` with its gains `[band, block]`."""
    in_bands, in_blocks = _places(decoded)
    nats = torch.from_numpy(STEP_NATS * gains.astype(np.float64)).to(decoded.device)
    return decoded + (in_bands.T @ nats @ in_blocks).to(decoded.dtype)


def gain_symbols(gains: Integers) -> tuple[Integers, int]:
    """What is coded of gains `[band, block]`: differences in time, and the row they fit best.

    The first block's are differences between neighbouring bands. A symbol is a difference plus
    `_LARGEST_SYMBOL`, row by row of `[band, block]`.
    """
    first = np.diff(gains[:, :1], axis=0, prepend=0)
    later = np.diff(gains, axis=1)
    symbols = np.concatenate([first, later], axis=1).ravel() + np.int32(_LARGEST_SYMBOL)
    costs = -np.log2(GAIN_TABLE.frequencies[0, 0][:, symbols]).sum(axis=1)
    return symbols.astype(np.int32), int(costs.argmin())


def gains_of(symbols: Integers) -> Integers:
    """Gains `[band, block]` of the symbols that `gain_symbols` gave.

    Raises:
        BitstreamError: If a gain is larger than an encoder writes.
    """
    differences = symbols.reshape(NUM_BANDS, -1) - np.int32(_LARGEST_SYMBOL)
    differences[:, 0] = np.cumsum(differences[:, 0])
    gains = np.cumsum(differences, axis=1, dtype=np.int32)
    largest = int(np.abs(gains).max())
    if largest > _LIMIT:
        raise BitstreamError(
            f"expected gains of at most {_LIMIT} steps, got {largest}; "
            "copy the file again from its source"
        )
    return gains


def gain_row(reader: ByteReader) -> int:
    """Read which row the symbols were coded with.

    Raises:
        BitstreamError: If there is no such row.
    """
    row = reader.take(1)[0]
    if row >= NUM_ROWS:
        raise BitstreamError(
            f"expected a row of gains below {NUM_ROWS}, got {row}; "
            "copy the file again from its source"
        )
    return row


def symbol_bits(symbols: Integers, row: int) -> float:
    """What the symbols cost under a row."""
    return float((FREQUENCY_BITS - np.log2(GAIN_TABLE.row(row)[symbols])).sum())


def _gain_table() -> CodeTable:
    """Row r: a difference d has a chance of about (r/16)^|d|; whole numbers only."""
    rows = np.ones((NUM_ROWS, 2 * _LARGEST_SYMBOL + 1), dtype=np.int64)
    for row in range(NUM_ROWS):
        weight = ((1 << FREQUENCY_BITS) * (NUM_ROWS - row)) // (NUM_ROWS + row)
        for distance in range(1, _LARGEST_SYMBOL + 1):
            weight = weight * row // NUM_ROWS
            rows[row, [_LARGEST_SYMBOL - distance, _LARGEST_SYMBOL + distance]] += weight
        rows[row, _LARGEST_SYMBOL] += (1 << FREQUENCY_BITS) - rows[row].sum()
    return CodeTable(rows.astype(np.int32)[None, None])


GAIN_TABLE = _gain_table()
"""The same for every model and file."""


def _places(decoded: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `[band, mel]` and `[block, frame]` of a gain at every place."""
    mels, frames = decoded.shape
    weights = _hats(NUM_BANDS, mels), _hats(num_blocks(frames), frames)
    in_bands, in_blocks = (torch.from_numpy(one).to(decoded.device) for one in weights)
    return in_bands, in_blocks


@lru_cache(maxsize=64)
def _hats(count: int, length: int) -> NDArray[np.float64]:
    """`[count, length]`: linear between the middles of equal parts, constant beyond the outer."""
    middles = (np.arange(count) + 0.5) * length / count
    places = np.arange(length) + 0.5
    return np.stack([np.interp(places, middles, one) for one in np.eye(count)])
