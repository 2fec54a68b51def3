"""A trained VAE gets a network beside it that knows one kind of sound: what is normal.

The VAE stays as it is. A fine-tuned one explains faults better, too, and sounds that it has learnt
from are too familiar to it to be compared with new ones; a network that is told normal from
disturbed sound learns what to look at, and has not learnt its examples by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.checkpoint import Checkpoint, Provenance, load_vae, save_vae
from audiovae.config import ModelConfig
from audiovae.models.blocks import step_mask
from audiovae.models.normality import EDGE_FRAMES, NORMALITY_STEP_FRAMES, NormalityClassifier
from audiovae.pretrained import MODEL_NAME
from audiovae.training.crops import draw_crops, to_device
from audiovae.training.data import Corpus, log_mel_statistics
from audiovae.training.disturbances import Disturber, Frames
from audiovae.training.loop import Update, Validation
from audiovae.training.precision import autocast
from audiovae.training.state import Progress

CROP_FRAMES: Final = 128
_BATCH_SIZE = 16
_LEARNING_RATE = 2e-3
_WARMUP_STEPS = 50
_ENDLESS_STEPS = 10_000_000  # minutes end it
_VALIDATION_BATCHES = 8
_LEAST_DEVIATION = 0.2  # nepers, added: a band that hardly moves is not blown up
_SHIFT = 0.5  # deviations, by which level and colour of a normal sound may differ
_SHIFT_POINTS = 6
_CELL_CHANGE, _STEP_CHANGE = 0.5, 1.0  # nepers that make a cell, and a step, mostly disturbed
_CELLS_WEIGHT = 4.0


def adapting_config(config: ModelConfig, minutes: float) -> ModelConfig:
    """The config of such a run, measured once, at its end."""
    training = config.training.model_copy(
        update={
            "minutes": minutes,
            "steps": _ENDLESS_STEPS,
            "validate_every_steps": _ENDLESS_STEPS,
            "batch_size": _BATCH_SIZE,
            "crop_frames": CROP_FRAMES,
            "learning_rate": _LEARNING_RATE,
            "warmup_steps": _WARMUP_STEPS,
            "precision": "bfloat16",
        }
    )
    return config.model_copy(update={"training": training})


class AdaptingTask:
    """The loop's view of it: half of each batch is normal, half disturbed."""

    def __init__(
        self,
        config: ModelConfig,
        normal: Corpus,
        foreign: Sequence[Frames],
        initial: Checkpoint,
        run_dir: Path,
        device: torch.device,
        provenance: Provenance,
    ) -> None:
        """Prepare a network for the sounds of `normal`.

        Args:
            config: From `adapting_config`.
            normal: Log-mel corpus.
            foreign: Log-mels of sounds of any kind, at least `CROP_FRAMES` long.
            initial: The VAE that the network goes with.
            run_dir: Where the model file of both goes.
            device: Where to train.
            provenance: Written into it.
        """
        torch.manual_seed(config.training.seed)
        self.config, self.run_dir, self.device = config, run_dir, device
        self.provenance = provenance
        self._initial = initial
        self._normal = _without_edges(normal)
        mean, deviation = log_mel_statistics(self._normal, config.spectrogram)
        network = NormalityClassifier(config.spectrogram.num_mels)
        network.mel_mean.copy_(mean)
        network.mel_deviation.copy_(deviation + _LEAST_DEVIATION)
        self._deviation = network.mel_deviation.numpy(force=True)[:, None].copy()
        self.networks: Mapping[str, nn.Module] = {"normality": network.to(device)}
        self.averaged = ("normality",)
        self._disturber = Disturber(foreign, config.spectrogram.log_floor)

    def updates(self, generator: torch.Generator, progress: Progress) -> Iterator[Update]:
        """One step on a batch of crops."""
        network = cast(NormalityClassifier, self.networks["normality"])
        loss = self._loss(network, generator)
        yield Update("normality", loss, {"loss": loss.detach()})

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """The loss of new disturbances of the same sounds."""
        network = cast(NormalityClassifier, averaged["normality"])
        generator = torch.Generator().manual_seed(self.config.training.seed)
        losses = [self._loss(network, generator) for _ in range(_VALIDATION_BATCHES)]
        return Validation({"loss": float(torch.stack(losses).mean())})

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write `model.safetensors`: the VAE as it was, and the network."""
        vae = load_vae(self._initial, MODEL_NAME)
        network = cast(NormalityClassifier, averaged["normality"])
        provenance = self.provenance.after(progress.step, progress.seconds, progress.metrics)
        scale = self._initial.quality_scale
        save_vae(self.run_dir / MODEL_NAME, vae, provenance, scale, network)

    def _loss(self, network: NormalityClassifier, generator: torch.Generator) -> Tensor:
        log_mel, change, mask = self._batch(generator)
        with autocast(self.config.training, self.device):
            cells, steps = network(log_mel, mask)
        pooled = functional.avg_pool2d(change[:, None], NORMALITY_STEP_FRAMES, ceil_mode=True)
        cell_change = pooled[:, 0]
        step_change = functional.avg_pool1d(change.amax(dim=1), NORMALITY_STEP_FRAMES)
        heard = functional.avg_pool1d(mask, NORMALITY_STEP_FRAMES)
        cells_loss = _cross_entropy(cells, cell_change / _CELL_CHANGE, heard)
        return _CELLS_WEIGHT * cells_loss + _cross_entropy(
            steps, step_change / _STEP_CHANGE, heard[:, 0]
        )

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Crops, by how much each cell was changed, both `[batch, mel, frame]`, and the mask."""
        training = self.config.training
        crops = draw_crops(
            self._normal,
            training.batch_size,
            training.crop_frames,
            generator,
            torch.device("cpu"),
        )
        seed = int(torch.randint(2**62, (), generator=generator))
        random = np.random.default_rng(seed)
        mask = step_mask(crops.lengths, training.crop_frames, stride=1)
        floor = self.config.spectrogram.log_floor
        normal = (crops.data.float().transpose(1, 2) * mask + floor * (1 - mask)).numpy()
        seen, change = np.empty_like(normal), np.zeros_like(normal)
        for row, crop in enumerate(normal):
            seen[row] = np.maximum(crop + self._shift(random), floor)
            if row % 2:
                seen[row], change[row] = self._disturber(seen[row], normal[row - 1], random)
        arrays = (torch.from_numpy(seen), torch.from_numpy(change), mask)
        log_mel, changed, inside = (to_device(array, self.device) for array in arrays)
        return log_mel, changed * inside, inside

    def _shift(self, random: np.random.Generator) -> Frames:
        """`[mel, 1]`: another level and colour, which a sound may have and still be normal."""
        points = random.standard_normal(_SHIFT_POINTS) + random.standard_normal()
        places = np.linspace(0, _SHIFT_POINTS - 1, len(self._deviation))
        curve = np.interp(places, np.arange(_SHIFT_POINTS), points)
        shift: Frames = (_SHIFT * curve[:, None] * self._deviation).astype(np.float32)
        return shift


def _cross_entropy(logits: Tensor, change: Tensor, weight: Tensor) -> Tensor:
    """Against a target that grows from 0 to 1 with the change."""
    target = 1 - torch.exp(-change)
    losses = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (losses * weight).sum() / weight.expand_as(losses).sum().clamp(min=1)


def _without_edges(corpus: Corpus) -> Corpus:
    """The same clips less the frames that reach beyond their ends."""
    lengths = (corpus.lengths - 2 * EDGE_FRAMES).clamp(min=1)
    first = torch.minimum(torch.full_like(lengths, EDGE_FRAMES), corpus.lengths - lengths)
    return replace(corpus, starts=corpus.starts + first, lengths=lengths)
