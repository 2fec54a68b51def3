"""Gains: how much stronger a sound is than its decode, for bands of mel and blocks of time.

A VAE that minimises an absolute error of log-mel decodes what it is unsure of near the median of
what it could be, which is quieter than its mean power; and a sound unlike the training data may
come back far too quiet. A gain for every 16 mel bands and 0.37 s costs 20 to 40 bits a second, and
the strength is right again. (Shape and gain coded apart: Gersho and Gray, 1992, Vector
Quantization and Signal Compression, section 12.10.)

Gains live at the middles of their bands and blocks; between them they go over linearly.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_BANDS = 8
BLOCK_FRAMES = 32
STEP_NATS = 0.25
MAX_STEPS = 31  # 67 dB
_POWER = 1.5
"""Gains match the sum of magnitude to this power: 1 favours spectral distance, 2 loudness."""


def num_blocks(num_frames: int) -> int:
    """Blocks of so many frames; they are equally long."""
    return max(1, -(-num_frames // BLOCK_FRAMES))


def measure_gains(log_mel: Tensor, decoded: Tensor) -> Tensor:
    """Gains that bring a decode to the strength of the sound.

    Args:
        log_mel: `[..., mel, frame]`, natural log of magnitude.
        decoded: The same of the decode.

    Returns:
        `[..., band, block]`, whole steps of `STEP_NATS`, float64. Gradients pass the rounding.
    """
    in_bands, in_blocks = _places(decoded)
    sums = [
        in_bands @ (_POWER * values.double()).exp() @ in_blocks.T for values in (log_mel, decoded)
    ]
    steps = ((sums[0] / sums[1]).log() / (_POWER * STEP_NATS)).clamp(-MAX_STEPS, MAX_STEPS)
    return steps.detach().round() + (steps - steps.detach())


def apply_gains(decoded: Tensor, gains: Tensor) -> Tensor:
    """The decode `[..., mel, frame]` with its gains `[..., band, block]`."""
    return decoded + spread_gains(decoded, gains)


def spread_gains(decoded: Tensor, gains: Tensor) -> Tensor:
    """What gains `[..., band, block]` add at every place of the decode, nats."""
    in_bands, in_blocks = _places(decoded)
    nats = STEP_NATS * gains.to(in_bands)
    return (in_bands.T @ nats @ in_blocks).to(decoded.dtype)


def _places(decoded: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `[band, mel]` and `[block, frame]` of a gain at every place."""
    mels, frames = decoded.shape[-2:]
    return (
        hats(NUM_BANDS, mels, decoded.device),
        hats(num_blocks(frames), frames, decoded.device),
    )


def hats(count: int, length: int, device: torch.device) -> Tensor:
    """`[count, length]`: linear between the middles of equal parts, constant beyond the outer."""
    places = (torch.arange(length, dtype=torch.float64, device=device) + 0.5) * (count / length)
    from_middles = (places - 0.5).clamp(0, count - 1)
    parts = torch.arange(count, dtype=torch.float64, device=device)[:, None]
    return (1 - (from_middles - parts).abs()).clamp(min=0)
