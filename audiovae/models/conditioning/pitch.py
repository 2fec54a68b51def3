"""Pitch conditioning: the network is told the fundamental frequency of every step.

Unlike the other kinds it changes along the signal, so it is no part of the context but is added
to the features wherever a level opens, in both paths. Without a pitch told, nothing is added; in
training that happens to some clips, so that the model works without one too.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.config import ModelConfig
from audiovae.errors import ShapeError
from audiovae.latents import Conditions

REFERENCE_HZ = 440.0
PITCH_CHANNELS = 2
"""Octaves above the reference, and 1 where there is a pitch; both 0 where there is none."""


class PitchTrack(nn.Module):
    """A strided convolution from the track to each level's features."""

    def __init__(self, config: ModelConfig) -> None:
        """Build the layers; they begin at zero, without effect."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(PITCH_CHANNELS, config.vae.width, stride, stride=stride, bias=False)
            for stride in config.vae.level_strides
        )
        for layer in self.layers:
            nn.init.zeros_(cast(Tensor, layer.weight))

    def forward(self, conditions: Conditions, level: int, mask: Tensor) -> Tensor:
        """What to add to the features of a level (0 is the coarsest).

        Args:
            conditions: Their `pitch` is cut or padded to the signal.
            level: Which level opens.
            mask: `[batch, 1, step]` of 0 and 1.

        Returns:
            `[batch, channel, step]`; zeros `[1, 1, 1]` if no pitch is told.
        """
        pitch = conditions.pitch
        if pitch is None:
            return mask.new_zeros(1, 1, 1)
        if pitch.ndim != 3 or pitch.shape[1] != PITCH_CHANNELS:
            wanted = f"[batch, {PITCH_CHANNELS}, frame]"
            raise ShapeError(f"expected conditions.pitch {wanted}, got {list(pitch.shape)}")
        layer = cast(nn.Conv1d, self.layers[level])
        frames = mask.shape[2] * layer.stride[0]
        fitted = functional.pad(pitch[:, :, :frames], (0, max(0, frames - pitch.shape[2])))
        added: Tensor = layer(fitted) * mask
        return added


def constant_pitch(hz: float, num_frames: int) -> Tensor:
    """The track `[2, frame]` of one pitch throughout."""
    octaves = math.log2(hz / REFERENCE_HZ)
    return torch.tensor([octaves, 1.0])[:, None].expand(PITCH_CHANNELS, num_frames)
