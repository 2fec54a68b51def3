"""Training of the hierarchical VAE: the ELBO on augmented log-mel crops."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.checkpoint import Provenance, QualityPoint, save_vae
from audiovae.chunks import pad_frames, padded_frames
from audiovae.config import ModelConfig
from audiovae.models.hvae import HVAE
from audiovae.models.output import VAEOutput
from audiovae.objectives.elbo import elbo_terms
from audiovae.pretrained import MODEL_NAME
from audiovae.training.augment import augment_log_mel
from audiovae.training.compiling import compiled
from audiovae.training.conditions import ConditionSource
from audiovae.training.crops import draw_crops
from audiovae.training.data import Corpus, log_mel_statistics, require_log_mels
from audiovae.training.figures import save_spectrogram_pairs
from audiovae.training.loop import Update, Validation
from audiovae.training.precision import autocast
from audiovae.training.state import Progress

QUALITY_KBPS = (0.3, 0.5, 0.8, 1.2, 1.8, 3.0, 4.5, 8.0)
"""What `--quality 1..8` aims at; lambda for each is measured on the validation clips."""
_VALIDATION_FRAMES = 512
_VALIDATION_BATCH = 16
_CURVE_LAMBDAS = 10
_LOG_EVERY_LAMBDAS = 3  # of the curve: 4 of 10 are logged, the smallest and the largest among them
_ACTIVE_UNIT_NATS = 0.01  # a channel whose mean KL is below carries nothing
_NATS_PER_BIT = math.log(2.0)


class VAETask:
    """The loop's view of the VAE."""

    def __init__(
        self,
        config: ModelConfig,
        train: Corpus,
        validation: Corpus,
        run_dir: Path,
        device: torch.device,
        provenance: Provenance,
    ) -> None:
        """Build the model for `config` and standardise it by the training corpus.

        Args:
            config: Model and training settings.
            train: Log-mel corpus to learn from.
            validation: Log-mel corpus to measure on.
            run_dir: Where model file and sample images go.
            device: Where to train.
            provenance: Written into the model file.
        """
        torch.manual_seed(config.training.seed)  # of the weights and of the bottleneck's noise
        self.config, self.run_dir, self.device = config, run_dir, device
        self.provenance = provenance
        self.quality_scale: tuple[QualityPoint, ...] = ()
        self.model = HVAE(config)
        mean, deviation = log_mel_statistics(train, config.spectrogram)
        self.model.mel_mean.copy_(mean)
        self.model.mel_deviation.copy_(deviation)
        self.model.to(device)
        self.networks: Mapping[str, nn.Module] = {"vae": self.model}
        self.averaged = ("vae",)
        self._train, self._validation = train.to(device), validation.pieces(_VALIDATION_FRAMES)
        for index, name in enumerate(self._validation.names if validation.mapped else ()):
            beginning = self._validation.clip(index)[
                :_VALIDATION_FRAMES, : config.spectrogram.num_mels
            ]
            require_log_mels(beginning, config.spectrogram, name)
        self._train_conditions = ConditionSource(config, train, device)
        self._validation_conditions = ConditionSource(config, self._validation, device)
        self._forward = compiled(self.model.forward, config.training, device)

    def updates(self, generator: torch.Generator, progress: Progress) -> Iterator[Update]:
        """One ELBO step on a batch of random crops."""
        training = self.config.training
        crops = draw_crops(
            self._train, training.batch_size, training.crop_frames, generator, self.device
        )
        log_mel = self._log_mel_of(crops.data)
        log_mel = augment_log_mel(log_mel, self.config.spectrogram, generator)
        conditions = self._train_conditions.draw(crops, generator)
        with autocast(training, self.device):
            output: VAEOutput = self._forward(log_mel, crops.lengths, conditions)
        objective = self.config.objective.at(progress.fraction)
        terms = elbo_terms(self.model, log_mel, output, objective)
        kbps = terms.rate_bits_per_frame.detach() * self._kbps_per_bit_a_frame()
        yield Update(
            "vae",
            terms.loss.mean(),
            {
                "loss": terms.loss.detach().mean(),
                "distortion": terms.distortion.detach().mean(),
                "log_mel_l1_db": terms.log_mel_l1_db.mean(),
                "kbps": kbps.mean(),
                "nats_per_frame": terms.rate_bits_per_frame.detach().mean() * _NATS_PER_BIT,
            },
        )

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Measure rate and distortion with settled latents from the smallest lambda to the largest.

        The quality scale of the model file is read off the same curve; active units are those at
        the largest lambda, where the model has most to say.
        """
        model = cast(HVAE, averaged["vae"])
        metrics: dict[str, float] = {}
        curve: list[QualityPoint] = []
        outputs: list[tuple[Tensor, VAEOutput]] = []
        for index, log_lambda in enumerate(self._lambda_grid()):
            outputs = self._encode_validation(model, log_lambda)
            point = self._measure(model, outputs)
            if log_lambda is None:
                metrics = point
            elif index % _LOG_EVERY_LAMBDAS == 0:
                tag = index // _LOG_EVERY_LAMBDAS + 1
                metrics |= {f"{name}_lambda_{tag}": value for name, value in point.items()}
            curve.append(QualityPoint(0, log_lambda or 0.0, point["kbps"], point["log_mel_l1_db"]))
        self.quality_scale = _quality_scale(curve) if self.config.quality else ()
        active, warnings = _active_units(model, [output for _, output in outputs])
        log_mel, output = outputs[0]
        image = self.run_dir / "samples" / f"step_{step:07d}.png"
        heard = slice(int(output.latents.num_frames[0]))  # without the padding
        pair = log_mel[0, :, heard], output.log_mel[0, :, heard]
        save_spectrogram_pairs(image, *pair, self.config.spectrogram)
        return Validation(metrics | active, warnings)

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write `model.safetensors` with the quality scale of the last validation."""
        model = cast(HVAE, averaged["vae"])
        provenance = self.provenance.after(progress.step, progress.seconds, progress.metrics)
        save_vae(self.run_dir / MODEL_NAME, model, provenance, self.quality_scale)

    def _measure(self, model: HVAE, outputs: list[tuple[Tensor, VAEOutput]]) -> dict[str, float]:
        terms = [elbo_terms(model, x, y, self.config.objective) for x, y in outputs]
        frames = torch.cat([y.latents.num_frames for _, y in outputs]).double()
        weight = (frames / frames.sum()).float()

        def mean(values: list[Tensor]) -> float:
            return float((torch.cat(values) * weight).sum())

        levels = torch.cat([y.level_bits() for _, y in outputs]).sum(dim=0) / frames.sum()
        kbps = self._kbps_per_bit_a_frame()
        return {
            "kbps": mean([t.rate_bits_per_frame for t in terms]) * kbps,
            "log_mel_l1_db": mean([t.log_mel_l1_db for t in terms]),
        } | {
            f"kbps_{name}": float(bits) * kbps
            for name, bits in zip(model.config.level_names, levels, strict=True)
        }

    def _encode_validation(
        self, model: HVAE, log_lambda: float | None
    ) -> list[tuple[Tensor, VAEOutput]]:
        """The first seconds of every validation clip, in batches of equal shape."""
        lengths = self._validation.lengths.clamp(max=_VALIDATION_FRAMES)
        order = lengths.argsort(descending=True, stable=True).tolist()
        outputs = []
        for first in range(0, len(order), _VALIDATION_BATCH):
            batch = order[first : first + _VALIDATION_BATCH]
            counts = lengths[batch].to(self.device)
            frames = self._padded_clips(batch, padded_frames(int(counts.max())))
            log_mel = self._log_mel_of(frames)
            conditions = self._validation_conditions.of(batch, frames, log_lambda)
            # In float32, as files are coded: the quality scale is measured here.
            outputs.append((log_mel, model.encode(log_mel, counts, conditions)))
        return outputs

    def _padded_clips(self, clips: Sequence[int], frames: int) -> Tensor:
        """The beginnings of validation clips, `[batch, frame, column]`."""
        beginnings = [self._validation.clip(i)[:_VALIDATION_FRAMES].float().T for i in clips]
        padded = torch.stack([pad_frames(clip, frames) for clip in beginnings])
        return padded.transpose(1, 2).to(self.device)

    def _log_mel_of(self, frames: Tensor) -> Tensor:
        """`[batch, mel, frame]` of `[batch, frame, column]`; behind the bands may be a pitch."""
        num_mels = self.config.spectrogram.num_mels
        return frames[..., :num_mels].float().transpose(1, 2)

    def _lambda_grid(self) -> list[float | None]:
        """Log lambdas of the curve; one None for a model without the conditioning."""
        quality = self.config.quality
        if quality is None:
            return [None]
        low, high = math.log(quality.min_lambda), math.log(quality.max_lambda)
        return [low + (high - low) * i / (_CURVE_LAMBDAS - 1) for i in range(_CURVE_LAMBDAS)]

    def _kbps_per_bit_a_frame(self) -> float:
        return self.config.spectrogram.frames_per_second / 1000.0


def _active_units(model: HVAE, outputs: list[VAEOutput]) -> tuple[dict[str, float], list[str]]:
    """How many units of each level carry anything, and a warning for a level where none does."""
    if not model.bottlenecks()[0].has_rate:
        return {}, []
    names = model.config.level_names
    used = dict.fromkeys(names, 0)
    available = dict.fromkeys(names, 0)
    groups = zip(model.config.vae.group_levels, model.config.vae.group_strides, strict=True)
    for index, (level, stride) in enumerate(groups):
        bits = torch.stack([o.group_bits[index].sum(dim=(0, 2)) for o in outputs]).sum(dim=0)
        steps = sum(float((o.latents.num_frames / stride).sum()) for o in outputs)
        nats = bits * _NATS_PER_BIT / steps  # [unit]
        used[names[level]] += int((nats >= _ACTIVE_UNIT_NATS).sum())
        available[names[level]] += len(nats)
    remedy = "lower objective.beta, or lengthen objective.beta_warmup"
    if model.config.quality is not None:
        remedy = "raise quality.max_lambda"
    warnings = [
        f"level {name} has collapsed: none of its {available[name]} units carries "
        f"{_ACTIVE_UNIT_NATS} nats a step; train longer, or {remedy}"
        for name in names
        if used[name] == 0
    ]
    return {f"active_units_{name}": float(used[name]) for name in names}, warnings


def _quality_scale(curve: Sequence[QualityPoint]) -> tuple[QualityPoint, ...]:
    """Where a curve, rising in kbps, passes the rates of `QUALITY_KBPS`.

    A rate out of the model's reach gets the nearer end, with the rate that it truly has.
    """
    points = []
    for quality, kbps in enumerate(QUALITY_KBPS, start=1):
        end = curve[0] if kbps < curve[0].kbps else curve[-1]
        point = QualityPoint(quality, end.log_lambda, end.kbps, end.log_mel_l1_db)
        for low, high in pairwise(curve):
            if 0 < low.kbps <= kbps <= high.kbps:
                share = math.log(kbps / low.kbps) / max(math.log(high.kbps / low.kbps), 1e-9)
                log_lambda = low.log_lambda + share * (high.log_lambda - low.log_lambda)
                l1_db = low.log_mel_l1_db + share * (high.log_mel_l1_db - low.log_mel_l1_db)
                point = QualityPoint(quality, log_lambda, kbps, l1_db)
                break
        points.append(point)
    return tuple(points)
