"""A trained VAE that goes on, for a short time, with one kind of sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from audiovae.config import ModelConfig
from audiovae.models.hvae import HVAE
from audiovae.training.loop import Validation
from audiovae.training.vae import VAETask

BATCH_SIZE = 4
CROP_FRAMES = 128
LEARNING_RATE_RATIO = 0.3
"""Of the learning rate that the weights were trained with."""
_WARMUP_STEPS = 20
_ENDLESS_STEPS = 10_000_000  # minutes end it


def adapting_config(config: ModelConfig, minutes: float) -> ModelConfig:
    """The config of a short run: many small steps at a low rate, measured once, at its end."""
    training = config.training.model_copy(
        update={
            "minutes": minutes,
            "steps": _ENDLESS_STEPS,
            "validate_every_steps": _ENDLESS_STEPS,
            "batch_size": BATCH_SIZE,
            "crop_frames": -(-CROP_FRAMES // config.vae.total_stride) * config.vae.total_stride,
            "learning_rate": LEARNING_RATE_RATIO * config.training.learning_rate,
            "warmup_steps": _WARMUP_STEPS,
        }
    )
    return config.model_copy(update={"training": training})


class AdaptingTask(VAETask):
    """Keeps the quality scale of the weights: what is compared later was asked for alike."""

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Rate and distortion of the sounds held back, in the middle of the quality scale."""
        scale = self.quality_scale
        log_lambda = scale[len(scale) // 2].log_lambda if scale else None
        model = cast(HVAE, averaged["vae"])
        return Validation(self._measure(model, self._encode_validation(model, log_lambda)))
