"""Training of the hierarchical VAE: the ELBO on augmented log-mel crops."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.checkpoint import Provenance, QualityPoint, save_vae
from audiovae.chunks import pad_frames, padded_frames
from audiovae.config import ModelConfig
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE, VAEOutput
from audiovae.objectives.elbo import elbo_terms
from audiovae.training.data import Corpus, augment_log_mel, draw_crops, log_mel_statistics
from audiovae.training.figures import save_spectrogram_pairs
from audiovae.training.loop import Progress, Update, Validation

_LOG = logging.getLogger(__name__)
QUALITY_KBPS = (0.3, 0.5, 0.8, 1.2, 1.8, 2.8, 4.5, 8.0)
"""What `--quality 1..8` aims at; lambda for each is measured on the validation clips."""
_VALIDATION_FRAMES = 512
_VALIDATION_LAMBDAS = 4
_CALIBRATION_LAMBDAS = 17
_ACTIVE_UNIT_NATS = 0.01  # a channel whose mean KL is below carries nothing (Burda et al., 2016)
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
        torch.manual_seed(config.training.seed)
        self.config, self.run_dir, self.device = config, run_dir, device
        self.provenance = provenance
        self.model = HVAE(config)
        mean, deviation = log_mel_statistics(train, config.spectrogram)
        self.model.mel_mean.copy_(mean)
        self.model.mel_deviation.copy_(deviation)
        self.model.to(device)
        self.networks: Mapping[str, nn.Module] = {"vae": self.model}
        self._train, self._validation = train.to(device), validation
        self._forward = self.model.__call__
        if config.training.compile and device.type == "cuda":
            self._forward = torch.compile(self.model)

    def updates(self, generator: torch.Generator) -> Iterator[Update]:
        """One ELBO step on a batch of random crops."""
        training = self.config.training
        crops = draw_crops(
            self._train, training.batch_size, training.crop_frames, generator, spill=32
        )
        log_mel = crops.data.float().transpose(1, 2)  # [batch, mel, frame]
        log_mel = augment_log_mel(log_mel, self.config.spectrogram, generator)
        conditions = self._draw_conditions(generator)
        with self._autocast():
            output: VAEOutput = self._forward(log_mel, crops.lengths, conditions)
        terms = elbo_terms(self.model, log_mel, output, self.config.objective)
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
        """Distortion and true-rate estimate with settled latents at several lambdas."""
        model = cast(HVAE, averaged["vae"])
        metrics: dict[str, float] = {}
        warnings: list[str] = []
        lambdas = self._lambda_grid(_VALIDATION_LAMBDAS)
        for number, log_lambda in enumerate(lambdas, start=1):
            outputs = self._encode_validation(model, log_lambda)
            tag = f"_{number}" if len(lambdas) > 1 else ""
            point = self._measure(model, outputs)
            metrics |= {f"{name}{tag}": value for name, value in point.items()}
        active = _active_units(model, [output for _, output in outputs])
        for name, (used, available) in active.items():
            metrics[f"active_units_{name}"] = used
            if used == 0:
                warnings.append(
                    f"level {name} has collapsed: none of its {available} channels carries "
                    f"{_ACTIVE_UNIT_NATS} nats; train longer, lower beta, or raise max_lambda"
                )
        log_mel, output = outputs[0]
        image = self.run_dir / "samples" / f"step_{step:07d}.png"
        save_spectrogram_pairs(image, log_mel[0], output.log_mel[0], self.config.spectrogram)
        return Validation(metrics, warnings)

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write `model.safetensors` with the quality scale measured on the validation clips."""
        model = cast(HVAE, averaged["vae"])
        provenance = self.provenance.after(progress.step, progress.seconds, progress.metrics)
        points = self.quality_scale(model) if self.config.quality else ()
        save_vae(self.run_dir / "model.safetensors", model, provenance, points)

    @torch.inference_mode()
    def quality_scale(self, model: HVAE) -> tuple[QualityPoint, ...]:
        """Lambda of each quality, interpolated on the measured rate of the validation clips.

        A rate outside the model's reach gets the nearest lambda, spread over the rest of the
        scale so that qualities stay distinct.
        """
        curve = []
        for log_lambda in self._lambda_grid(_CALIBRATION_LAMBDAS):
            point = self._measure(model, self._encode_validation(model, log_lambda))
            curve.append((float(cast(float, log_lambda)), point["kbps"], point["log_mel_l1_db"]))
        return tuple(
            _point_at(curve, quality, kbps) for quality, kbps in enumerate(QUALITY_KBPS, start=1)
        )

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
            for name, bits in zip(model.level_names(), levels, strict=True)
        }

    def _encode_validation(
        self, model: HVAE, log_lambda: float | None
    ) -> list[tuple[Tensor, VAEOutput]]:
        """The first seconds of every validation clip, in batches of equal shape."""
        clips = [
            self._validation.clip(i)[:_VALIDATION_FRAMES]
            for i in range(len(self._validation.names))
        ]
        clips.sort(key=len, reverse=True)
        outputs = []
        for first in range(0, len(clips), 16):
            batch = clips[first : first + 16]
            shape = padded_frames(len(batch[0]))
            log_mel = torch.stack([pad_frames(clip.float().T, shape) for clip in batch])
            log_mel = log_mel.to(self.device)
            lengths = torch.tensor([len(clip) for clip in batch], device=self.device)
            given = (
                None
                if log_lambda is None
                else torch.full_like(lengths, log_lambda, dtype=torch.float32)
            )
            with self._autocast():
                outputs.append((log_mel, model.encode(log_mel, lengths, Conditions(given))))
        return outputs

    def _draw_conditions(self, generator: torch.Generator) -> Conditions:
        quality = self.config.quality
        if quality is None:
            return Conditions()
        low, high = math.log(quality.min_lambda), math.log(quality.max_lambda)
        draw = torch.rand(self.config.training.batch_size, generator=generator)
        return Conditions((low + (high - low) * draw).to(self.device))

    def _lambda_grid(self, count: int) -> list[float | None]:
        quality = self.config.quality
        if quality is None:
            return [None]
        low, high = math.log(quality.min_lambda), math.log(quality.max_lambda)
        return [low + (high - low) * i / (count - 1) for i in range(count)]

    def _kbps_per_bit_a_frame(self) -> float:
        return self.config.spectrogram.frames_per_second / 1000.0

    def _autocast(self) -> torch.autocast:
        use_bfloat16 = self.config.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=use_bfloat16)


def _active_units(model: HVAE, outputs: list[VAEOutput]) -> dict[str, tuple[int, int]]:
    """Channels whose mean KL is at least `_ACTIVE_UNIT_NATS`, and all, by level name."""
    found: dict[str, tuple[int, int]] = {}
    for index, level in enumerate(model.group_levels()):
        bits = sum((o.group_bits[index].sum(dim=(0, 2)) for o in outputs), torch.zeros(1))
        stride = model.level_strides()[level]
        steps = sum(float((o.latents.num_frames / stride).sum()) for o in outputs)
        nats = bits.cpu() * _NATS_PER_BIT / steps
        name = model.level_names()[level]
        used, available = found.get(name, (0, 0))
        found[name] = (used + int((nats >= _ACTIVE_UNIT_NATS).sum()), available + len(nats))
    return found


def _point_at(curve: list[tuple[float, float, float]], quality: int, kbps: float) -> QualityPoint:
    """Where a curve of (log lambda, kbps, dB), rising in kbps, passes a rate."""
    for (low, low_kbps, low_db), (high, high_kbps, high_db) in zip(curve, curve[1:], strict=False):
        if low_kbps <= kbps <= high_kbps:
            share = math.log(kbps / low_kbps) / max(math.log(high_kbps / low_kbps), 1e-9)
            return QualityPoint(
                quality, low + share * (high - low), kbps, low_db + share * (high_db - low_db)
            )
    end = curve[0] if kbps < curve[0][1] else curve[-1]
    return QualityPoint(quality, *end)
