"""A small network that tells normal sound from disturbed.

It is trained on normal sound and on the same with something put in or taken away
(`training/disturbances.py`): the discriminative half of DRAEM (Zavrtanik et al., 2021,
arXiv:2108.07610), where outliers teach what is normal (Hendrycks et al., 2019, arXiv:1812.04606).
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.models.blocks import step_mask

NORMALITY_PREFIX: Final = "normality."
"""Before the names of its tensors in a model file."""
NORMALITY_STEP_FRAMES: Final = 4
EDGE_FRAMES: Final = 2
"""At the ends of a sound, where a frame's window reaches beyond: unlike any other."""
_WIDTH = 24
_NEIGHBOURHOOD_FRAMES = 129
_FIRST_LOGIT = -2.5  # most of what it is shown is normal
_SOFT_LIMIT = 10.0  # standard deviations; beyond, differences matter less and less


class NormalityClassifier(nn.Module):
    """Two-dimensional convolutions over what is standardised, by the whole and by the moment."""

    mel_mean: Tensor
    mel_deviation: Tensor

    def __init__(self, num_mels: int) -> None:
        """Build it; `mel_mean` and `mel_deviation` are to be set to those of normal sound."""
        super().__init__()
        self.register_buffer("mel_mean", torch.zeros(num_mels))
        self.register_buffer("mel_deviation", torch.ones(num_mels))
        rows = _halved(num_mels, 2)
        self.stem = nn.Sequential(
            nn.Conv2d(2, _WIDTH, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.places = nn.Parameter(torch.zeros(_WIDTH, rows, 1))  # a row knows which it is
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            )
            for _ in range(2)
        )
        self.cells = nn.Conv2d(_WIDTH, 1, 1)
        self.narrow = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, (5, 3), stride=(2, 1), padding=(2, 1)),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, (5, 3), stride=(2, 1), padding=(2, 1)),
            nn.ReLU(),
        )
        self.steps = nn.Sequential(
            nn.Conv1d(_WIDTH * (2 + _halved(rows, 2)), 2 * _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(2 * _WIDTH, 1, 1),
        )
        for head in (self.cells, self.steps[-1]):
            nn.init.constant_(cast(Tensor, head.bias), _FIRST_LOGIT)

    def forward(self, log_mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """How disturbed a sound is, as logits.

        Args:
            log_mel: `[batch, mel, frame]`, natural log of magnitude.
            mask: `[batch, 1, frame]`, 1 where there is sound to look at, else 0.

        Returns:
            `[batch, row, step]` of cells of 4 bands and 4 frames, and `[batch, step]`.
        """
        deviation = self.mel_deviation[:, None]
        whole = (log_mel - self.mel_mean[:, None]) / deviation
        moment = (log_mel - _running_mean(log_mel, mask)) / deviation
        seen = torch.stack([_softly_limited(whole), _softly_limited(moment)], dim=1)
        seen = (seen * mask[:, None]).contiguous(memory_format=torch.channels_last)
        hidden = self.stem(seen) + self.places
        for block in self.blocks:
            hidden = hidden + block(hidden)
        summary = [self.narrow(hidden).flatten(1, 2), hidden.amax(dim=2), hidden.mean(dim=2)]
        return self.cells(hidden)[:, 0], self.steps(torch.cat(summary, dim=1))[:, 0]


def inner_mask(num_frames: Tensor, frames: int) -> Tensor:
    """`[batch, 1, frame]`: 1 within sounds of these lengths `[batch]`, but for their edges."""
    mask = step_mask(num_frames - EDGE_FRAMES, frames, stride=1)
    mask[..., :EDGE_FRAMES] = 0
    return mask


def _running_mean(log_mel: Tensor, mask: Tensor) -> Tensor:
    """Mean of the neighbourhood of each frame that the mask leaves."""
    size = _NEIGHBOURHOOD_FRAMES

    def pooled(values: Tensor) -> Tensor:
        return functional.avg_pool1d(values, size, stride=1, padding=size // 2)

    return pooled(log_mel * mask) / pooled(mask).clamp(min=1 / size)


def _softly_limited(values: Tensor) -> Tensor:
    return values / (1 + values.abs() / _SOFT_LIMIT)


def _halved(count: int, times: int) -> int:
    """Rows left after so many convolutions of stride 2."""
    for _ in range(times):
        count = -(-count // 2)
    return count
