"""The adversarial stage: decoder and vocoder tuned on what the file leaves of a sound.

A trained VAE and a trained vocoder go on together, on reconstructions at every quality and on
true log-mels, under discriminators that hear the sound: the adversarial VAE (Larsen et al., 2016,
arXiv:1512.09300), and the way in which image codecs with a frozen encoder are sharpened (HiFiC,
Mentzer et al., 2020, arXiv:2006.09965).

What learns is what no prior and no posterior depends on: the way in of the finest latent group,
the blocks after it and the output, and the vocoder. In the top-down path every earlier layer
feeds the priors and posteriors of the groups below, so to move it would move symbols and rates,
and the rate would have to be learnt anew. Like this a tuned model writes the very symbols of the
model it came from, at the very rate, and only sounds better; its identity is its own all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.checkpoint import (
    Provenance,
    QualityPoint,
    save_discriminators,
    save_vae,
    save_vocoder,
)
from audiovae.chunks import pad_frames, padded_frames
from audiovae.config import ModelConfig
from audiovae.gains import apply_gains, measure_gains
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE
from audiovae.models.vocoder import PredictedSTFT, Vocoder
from audiovae.objectives.elbo import energy_error
from audiovae.pretrained import MODEL_NAME
from audiovae.spectrogram import log_mel_spectrogram, log_mel_to_db
from audiovae.training.adversary import NETWORK, Adversary
from audiovae.training.augment import augment_waveform
from audiovae.training.compiling import compiled
from audiovae.training.conditions import draw_quality
from audiovae.training.crops import draw_crops
from audiovae.training.data import Corpus, to_float
from audiovae.training.figures import save_spectrogram_pairs
from audiovae.training.initial import DISCRIMINATORS_NAME, VOCODER_NAME
from audiovae.training.listening import SoundFigures, heard_clips, listen
from audiovae.training.loop import Update, Validation
from audiovae.training.precision import autocast
from audiovae.training.state import Progress
from audiovae.training.vocoder import LEARNT_POLISH_STEPS, vocoder_losses

_GENERATOR = "generator"
_ONLY_QUALITY = QualityPoint(0, 0.0, 0.0, 0.0)  # of a model without the conditioning
_HEARD_QUALITIES = (_ONLY_QUALITY.quality, 4, 6)  # the log-mel is measured at all of the scale


class Generator(nn.Module):
    """The VAE with its frozen part, and the vocoder: one network to the optimiser."""

    def __init__(self, config: ModelConfig) -> None:
        """Build both; of the VAE only what comes after the last prior learns."""
        super().__init__()
        self.vae = HVAE(config.model_copy(update={"kind": "vae"}))
        self.vocoder = Vocoder(config.vocoder, config.spectrogram)
        self.vae.requires_grad_(False)
        for part in self.tuned():
            part.requires_grad_(True)

    def tuned(self) -> list[nn.Module]:
        """Parts of the VAE that learn."""
        last = self.vae.groups[-1].get_submodule("inject")
        return [last, self.vae.head, self.vae.head_norm, self.vae.output]

    def forward(
        self, log_mel: Tensor, num_frames: Tensor, conditions: Conditions, copied: Tensor
    ) -> tuple[Tensor, PredictedSTFT]:
        """Settled reconstruction `[batch, mel, frame]`, and the STFT of its sound, gains included.

        The reconstruction comes without gains, since they would hide from its distortion where
        its level drifts to.

        Args:
            log_mel: `[batch, mel, frame]`, of the true sound.
            num_frames: `[batch]`.
            conditions: Lambda of each item.
            copied: `[batch, 1, 1]`, true for items that are sounded from their true log-mel.
        """
        decoded = self.vae.encode(log_mel, num_frames, conditions).log_mel
        heard = apply_gains(decoded, measure_gains(log_mel, decoded))
        return decoded, self.vocoder.predict(torch.where(copied, log_mel, heard))


class AdversarialTask:
    """The loop's view of VAE, vocoder and discriminators together."""

    def __init__(
        self,
        config: ModelConfig,
        train: Corpus,
        validation: Corpus,
        run_dir: Path,
        device: torch.device,
        provenance: Provenance,
    ) -> None:
        """Build the networks of `config`; the corpora are of waveforms.

        The weights are random, and are to be filled (`parts`), with the VAE's `quality_scale`.
        """
        torch.manual_seed(config.training.seed)
        self.config, self.run_dir, self.device = config, run_dir, device
        self.provenance = provenance
        self.quality_scale: tuple[QualityPoint, ...] = ()
        self.generator = Generator(config).to(device)
        self._adversary = Adversary(config, device)
        rivals = self._adversary.discriminators
        self.networks: Mapping[str, nn.Module] = {_GENERATOR: self.generator, NETWORK: rivals}
        self.averaged = (_GENERATOR,)
        self._train, self._validation = train.to(device), validation
        self._forward = compiled(self.generator.forward, config.training, device)

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """The networks by their kind in model files."""
        rivals = self._adversary.discriminators
        return {"vae": self.generator.vae, "vocoder": self.generator.vocoder, NETWORK: rivals}

    def updates(self, generator: torch.Generator, progress: Progress) -> Iterator[Update]:
        """One step of the discriminators, if they take part, and one of decoder and vocoder."""
        target, log_mel = self._draw(generator)
        decoded, predicted = self._reconstruct(log_mel, generator)
        waveform = self.generator.vocoder.polish(predicted, LEARNT_POLISH_STEPS)
        losses = vocoder_losses(predicted, waveform, target, self.config.spectrogram)
        total = torch.stack(list(losses.values())).sum()
        error = (decoded - log_mel).abs()
        anchor = self._anchor(decoded, log_mel, error)
        metrics = {name: loss.detach() for name, loss in losses.items()}
        metrics["log_mel_l1_db"] = log_mel_to_db(error.detach().mean())
        if self._adversary.joins(progress):
            trial = self._adversary.try_sound(waveform, target, generator)
            yield Update(NETWORK, trial.loss, {NETWORK: trial.loss.detach()})
            total, more = self._adversary.pull(predicted, waveform, total, trial)
            metrics |= more
        yield Update(_GENERATOR, total + self.config.adversarial.anchor_weight * anchor, metrics)

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Mel distance of copy synthesis and of some qualities; log-mel error of all of them."""
        model = cast(Generator, averaged[_GENERATOR])
        heard = listen(model.vocoder, self._validation, self.device, lambda log_mel: log_mel)
        metrics = _figures("copied", heard)
        measured = []
        for point in self.quality_scale or (_ONLY_QUALITY,):
            decode = partial(self._decode, model.vae, point)
            if point.quality in _HEARD_QUALITIES:
                heard = listen(model.vocoder, self._validation, self.device, decode)
                metrics |= _figures(f"quality_{point.quality}", heard)
            measured.append(replace(point, log_mel_l1_db=self._error_db(decode)))
            metrics[f"log_mel_l1_db_{point.quality}"] = measured[-1].log_mel_l1_db
        self.quality_scale = tuple(measured) if self.quality_scale else ()
        image = self.run_dir / "samples" / f"step_{step:07d}.png"
        save_spectrogram_pairs(image, heard.original, heard.decoded, self.config.spectrogram)
        return Validation(metrics)

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write `model.safetensors`, `vocoder.safetensors` and the discriminators."""
        model = cast(Generator, averaged[_GENERATOR])
        provenance = self.provenance.after(progress.step, progress.seconds, progress.metrics)
        save_vae(self.run_dir / MODEL_NAME, model.vae, provenance, self.quality_scale)
        of_vocoder = self.config.model_copy(update={"kind": "vocoder"})
        save_vocoder(self.run_dir / VOCODER_NAME, model.vocoder, of_vocoder, provenance)
        rivals = self._adversary.discriminators
        save_discriminators(self.run_dir / DISCRIMINATORS_NAME, rivals, self.config, provenance)

    def _anchor(self, decoded: Tensor, log_mel: Tensor, error: Tensor) -> Tensor:
        """Distortion of the log-mel: L1 and, lest the sound get quieter, energy of patches."""
        deviation = self.generator.vae.mel_deviation
        mask = torch.ones_like(log_mel[:, :1])  # [batch, 1, frame]
        energy = energy_error(decoded, log_mel, mask).mean() / deviation.mean()
        return (error / deviation[:, None]).mean() + self.config.objective.energy_weight * energy

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random crops `[batch, sample]` and their log-mel `[batch, mel, frame]`."""
        training, spectrogram = self.config.training, self.config.spectrogram
        samples = training.crop_frames * spectrogram.hop_samples
        crops = draw_crops(self._train, training.batch_size, samples, generator, self.device)
        target = augment_waveform(to_float(crops.data), spectrogram.sample_rate, generator)
        return target, log_mel_spectrogram(target, spectrogram)

    def _reconstruct(
        self, log_mel: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, PredictedSTFT]:
        """Every item at a quality of its own; the first few are copied, not coded."""
        batch, _, frames = log_mel.shape
        conditions = draw_quality(self.config, generator, self.device)
        num_frames = torch.full((batch,), frames, device=self.device)
        count = round(self.config.adversarial.copy_share * batch)
        copied = (torch.arange(batch, device=self.device) < count)[:, None, None]
        with autocast(self.config.training, self.device):
            output: tuple[Tensor, PredictedSTFT] = self._forward(
                log_mel, num_frames, conditions, copied
            )
        return output

    def _decode(self, vae: HVAE, point: QualityPoint, log_mel: Tensor) -> Tensor:
        """Settled reconstruction of `[1, mel, frame]` at one quality, with its gains."""
        frames = log_mel.shape[2]
        padded = pad_frames(log_mel, padded_frames(frames))
        num_frames = torch.tensor([frames], device=self.device)
        log_lambda = None if self.config.quality is None else point.log_lambda
        conditions = Conditions.at_lambda(log_lambda, 1, self.device)
        settled = vae.encode(padded, num_frames, conditions).log_mel[:, :, :frames]
        return apply_gains(settled, measure_gains(log_mel, settled))

    def _error_db(self, decode: Callable[[Tensor], Tensor]) -> float:
        """Mean absolute difference of decoded log-mels, over the validation clips."""
        errors = [
            (decode(log_mel) - log_mel).abs().mean()
            for _, log_mel in heard_clips(self._validation, self.config.spectrogram, self.device)
        ]
        return float(log_mel_to_db(torch.stack(errors).mean()))


def _figures(name: str, figures: SoundFigures) -> dict[str, float]:
    return {f"mel_distance_{name}": figures.mel_distance, f"short_{name}": figures.short}
