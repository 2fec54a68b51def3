"""A sound over time: its levels, where the model errs, what it pays and what it sees.

In blocks of 32 frames (0.37 s). `anomaly.py` compares these with those of normal sounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from audiovae.analysis.pooling import (
    Arrays,
    at_frames,
    block_means,
    block_peaks,
    encode_at,
    in_bands,
)
from audiovae.checkpoint import Model
from audiovae.models.normality import NORMALITY_STEP_FRAMES, inner_mask
from audiovae.models.output import VAEOutput

BLOCK_FRAMES: Final = 32
CELL_FRAMES: Final = 8
CELL_BANDS: Final = 64
_QUALITIES = (2, 6)
_ERROR_BANDS = 16
_LEAST_ERROR = 1e-3
_LEAST_BITS = 0.5
_UNSEEN = -20.0  # the logit of steps that are not looked at


class Profiling:
    """Errors, bits and features of blocks, and the cells of a heat map.

    A file's arrays, float32 but for `cells`:
        errors: `[channel, block]`, log of the error's deviation by quality and band.
        rates: `[channel, block]`, log bits of each latent group, mean and peak, by quality.
        features: `[channel, block]`, the encoder's, of the middle levels.
        levels: `[channel, block]`, mean and range of the log-mel of each band: no model's view.
        disturbances: `[1, block]`, only of an adapted model: largest logit of its steps.
        squares: `[block]`, mean squared error in the model's standardised log-mel.
        cells: `[2, band, cell]`, float16: error and level in nats, for the heat map.
        seconds: Length of the file.
    """

    def __init__(self, model: Model) -> None:
        """Measure with `model`."""
        self._model = model

    def measure(
        self, log_mel: Tensor, num_frames: Tensor, core_frames: Sequence[int]
    ) -> list[Arrays]:
        """Profile chunks; see `audiovae.measuring.Measurement`."""
        qualities = _QUALITIES if self._model.quality_scale else _QUALITIES[:1]
        outputs = [encode_at(self._model, log_mel, num_frames, quality) for quality in qualities]
        parts = [
            self._row(row, core, log_mel[row], outputs) for row, core in enumerate(core_frames)
        ]
        if self._model.normality is not None:
            steps = self._disturbances(log_mel, num_frames)
            for row, core in enumerate(core_frames):
                frames = at_frames(steps[row : row + 1], NORMALITY_STEP_FRAMES, core)
                parts[row]["disturbances"] = block_peaks(frames, core, BLOCK_FRAMES).cpu().numpy()
        return parts

    def join(self, parts: Sequence[Arrays]) -> Arrays:
        """One after the other."""
        return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}

    def finish(self, whole: Arrays, seconds: float) -> Arrays:
        """The same, and the length."""
        return whole | {"seconds": np.array(seconds)}

    def _row(self, row: int, core: int, log_mel: Tensor, outputs: Sequence[VAEOutput]) -> Arrays:
        errors, rates = [], []
        for output in outputs:
            error = output.log_mel[row] - log_mel
            bands = in_bands(error.square(), _ERROR_BANDS).mean(dim=1)
            errors.append((block_means(bands, core, BLOCK_FRAMES).sqrt() + _LEAST_ERROR).log())
            rates += _rates(output, row, core)
        error = outputs[0].log_mel[row] - log_mel
        deviation = self._model.vae.mel_deviation[:, None]
        squares = (error / deviation).square().mean(dim=0)
        cells = [
            block_means(in_bands(error.square(), CELL_BANDS).mean(1), core, CELL_FRAMES).sqrt(),
            block_means(in_bands(log_mel, CELL_BANDS).mean(dim=1), core, CELL_FRAMES),
        ]
        return {
            "errors": torch.cat(errors).cpu().numpy(),
            "rates": torch.cat(rates).cpu().numpy(),
            "features": self._features(outputs[0], row, core).cpu().numpy(),
            "levels": _levels(cells[1]).cpu().numpy(),
            "squares": block_means(squares, core, BLOCK_FRAMES).cpu().numpy(),
            "cells": torch.stack(cells).half().cpu().numpy(),
        }

    @torch.inference_mode()
    def _disturbances(self, log_mel: Tensor, num_frames: Tensor) -> Tensor:
        """Logits `[batch, step]` of what knows normal sounds."""
        assert self._model.normality is not None
        mask = inner_mask(num_frames, log_mel.shape[2])
        _, steps = self._model.normality(log_mel, mask)
        is_seen = functional.avg_pool1d(mask, NORMALITY_STEP_FRAMES)[:, 0] > 0
        logits: Tensor = steps.masked_fill(~is_seen, _UNSEEN)
        return logits

    def _features(self, output: VAEOutput, row: int, core: int) -> Tensor:
        """`[channel, block]`; the coarsest level is too slow and the finest too noisy to help."""
        levels = list(zip(output.evidence, self._model.vae.config.vae.level_strides, strict=True))
        chosen = levels[1:-1] or levels
        pooled = [
            block_means(at_frames(features[row], stride, core), core, BLOCK_FRAMES)
            for features, stride in chosen
        ]
        return torch.cat(pooled)


def _levels(cells: Tensor) -> Tensor:
    """`[2 * band, block]`: mean and range of the cells `[band, cell]` of each block."""
    count, size = cells.shape[1], BLOCK_FRAMES // CELL_FRAMES
    spread = block_peaks(cells, count, size) + block_peaks(-cells, count, size)
    return torch.cat([block_means(cells, count, size), spread])


def _rates(output: VAEOutput, row: int, core: int) -> list[Tensor]:
    """Log bits `[1, block]` of each group: the mean of its steps, and the largest."""
    found = []
    for bits, stride in zip(output.group_bits, output.latents.strides, strict=True):
        spent = at_frames(bits[row].sum(dim=0, keepdim=True), stride, core)
        for pool in (block_means, block_peaks):
            found.append((pool(spent, core, BLOCK_FRAMES).clamp(min=0) + _LEAST_BITS).log())
    return found
