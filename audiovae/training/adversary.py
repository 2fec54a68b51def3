"""The discriminators' part of a training step, for every task that makes sound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiovae.config import ModelConfig
from audiovae.models.discriminators import DiscriminatorOutput, Discriminators
from audiovae.models.vocoder import PredictedSTFT
from audiovae.objectives.adversarial import (
    balanced,
    discriminator_hinge_loss,
    feature_matching_loss,
    generator_hinge_loss,
)
from audiovae.training.compiling import compiled
from audiovae.training.precision import autocast
from audiovae.training.state import Progress

NETWORK = "discriminators"
_LEVEL = 0.3  # root mean square at which the discriminators hear every item
_MIN_LEVEL = 1e-3  # quieter items are not brought up further: silence stays silence


@dataclass(frozen=True)
class Trial:
    """One batch before the discriminators.

    Attributes:
        loss: What the discriminators minimise.
        real: Their judgement of the true sound, made before that step.
        start: First sample of the crop they see.
        gain: `[batch, 1]`, brings the true sound of the crop to one level.
    """

    loss: Tensor
    real: DiscriminatorOutput
    start: int
    gain: Tensor


class Adversary:
    """Discriminators, and what they ask of the sound.

    Made and true sound are brought to one level by the same gain, since all other losses are
    relative too: a quiet clip is judged like a loud one. The true sound's features of the
    discriminators' own step serve the generator's as well, one update old.
    """

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        """Build the discriminators of `config`."""
        self.config, self._device = config, device
        self.discriminators = Discriminators(config.discriminators).to(device)
        self._judge = compiled(self.discriminators.forward, config.training, device)

    def joins(self, progress: Progress) -> bool:
        """Whether the run has come to where the discriminators take part."""
        return progress.fraction >= self.config.adversarial.start_fraction

    def try_sound(self, made: Tensor, true: Tensor, generator: torch.Generator) -> Trial:
        """Judge true and made sound in one batch, for the discriminators' own step.

        Args:
            made: `[batch, sample]`; no gradient goes into it.
            true: `[batch, sample]`.
            generator: Chooses the crop.
        """
        samples = min(self.config.discriminators.crop_samples, true.shape[1])
        start = int(torch.randint(true.shape[1] - samples + 1, (), generator=generator))
        crop = true[:, start : start + samples]
        level = crop.square().mean(dim=1, keepdim=True).sqrt()
        gain = _LEVEL / level.clamp(min=_MIN_LEVEL)
        both = torch.cat([crop, made.detach()[:, start : start + samples]]) * gain.repeat(2, 1)
        with autocast(self.config.training, self._device):
            real, fake = self._judge(both).split()
        loss = discriminator_hinge_loss(real.scores, fake.scores)
        return Trial(loss, real.detach(), start, gain)

    def pull(
        self, predicted: PredictedSTFT, made: Tensor, reconstruction: Tensor, trial: Trial
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss that stands for the reconstruction and the adversary, and what to log.

        Args:
            predicted: What the sound was made of; the losses are balanced there.
            made: As in `try_sound`, with its graph.
            reconstruction: Loss whose gradient sets the measure.
            trial: Of the same sound.
        """
        samples = min(self.config.discriminators.crop_samples, made.shape[1])
        crop = made[:, trial.start : trial.start + samples] * trial.gain
        self.discriminators.requires_grad_(False)
        with autocast(self.config.training, self._device):
            fake: DiscriminatorOutput = self._judge(crop)
        hinge = generator_hinge_loss(fake.scores)
        features = feature_matching_loss(trial.real.features, fake.features)
        weights = self.config.adversarial
        losses = {
            "hinge": (hinge, weights.hinge_weight),
            "features": (features, weights.feature_weight),
        }
        loss = balanced(predicted.learnt(), reconstruction, losses)
        self.discriminators.requires_grad_(True)
        return loss, {name: term.detach() for name, (term, _) in losses.items()}
