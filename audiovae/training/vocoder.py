"""Training of the vocoder: reconstruction first, then discriminators on top.

The pseudo-inverse of the mel filterbank and explicit phase losses teach in minutes what a GAN
alone takes hours for; the data is taught band limits, silence, fades, clipping and levels, without
which the vocoder fails on just those (arXiv:2406.08196, arXiv:2311.11545). From
`adversarial.start_fraction` of the run on, discriminators refine what the network has by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.checkpoint import Provenance, save_discriminators, save_vocoder
from audiovae.config import ModelConfig, SpectrogramConfig
from audiovae.models.vocoder import PredictedSTFT, Vocoder
from audiovae.objectives.spectral import (
    framed_spectrum,
    magnitude_loss,
    mel_distance,
    phase_losses,
)
from audiovae.pretrained import MODEL_NAME
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training.adversary import NETWORK, Adversary
from audiovae.training.augment import augment_waveform
from audiovae.training.compiling import compiled
from audiovae.training.crops import draw_crops
from audiovae.training.data import Corpus, to_float
from audiovae.training.figures import save_spectrogram_pairs
from audiovae.training.initial import DISCRIMINATORS_NAME
from audiovae.training.listening import listen
from audiovae.training.loop import Update, Validation
from audiovae.training.precision import autocast
from audiovae.training.state import Progress

LEARNT_POLISH_STEPS = 8
"""Griffin-Lim steps that the sound is judged after: half of those that it is made with."""
_MAGNITUDE_WEIGHT = 1.0
_PHASE_WEIGHT = 1.0
_SOUND_WEIGHT = 1.0
_MEL_WEIGHT = 2.0


class VocoderTask:
    """The loop's view of the vocoder."""

    def __init__(
        self,
        config: ModelConfig,
        train: Corpus,
        validation: Corpus,
        run_dir: Path,
        device: torch.device,
        provenance: Provenance,
    ) -> None:
        """Build the vocoder of `config`; `train` and `validation` are waveform corpora."""
        torch.manual_seed(config.training.seed)
        self.config, self.run_dir, self.device = config, run_dir, device
        self.provenance = provenance
        self.vocoder = Vocoder(config.vocoder, config.spectrogram).to(device)
        joins = config.adversarial.start_fraction < 1
        self._adversary = Adversary(config, device) if joins else None
        rivals = {NETWORK: self._adversary.discriminators} if self._adversary else {}
        self.networks: Mapping[str, nn.Module] = {"vocoder": self.vocoder, **rivals}
        self.averaged = ("vocoder",)
        self._train, self._validation = train.to(device), validation
        self._predict = compiled(self.vocoder.predict, config.training, device)

    def updates(self, generator: torch.Generator, progress: Progress) -> Iterator[Update]:
        """One step of the discriminators, if they take part, and one of the vocoder."""
        training, spectrogram = self.config.training, self.config.spectrogram
        samples = training.crop_frames * spectrogram.hop_samples
        crops = draw_crops(self._train, training.batch_size, samples, generator, self.device)
        target = augment_waveform(to_float(crops.data), spectrogram.sample_rate, generator)
        log_mel = log_mel_spectrogram(target, spectrogram)
        with autocast(training, self.device):
            predicted = self._predict(log_mel)
        waveform = self.vocoder.polish(predicted, LEARNT_POLISH_STEPS)
        losses = vocoder_losses(predicted, waveform, target, spectrogram)
        metrics = {name: loss.detach() for name, loss in losses.items()}
        total = torch.stack(list(losses.values())).sum()
        adversary = self._adversary
        if adversary is not None and adversary.joins(progress):
            trial = adversary.try_sound(waveform, target, generator)
            yield Update(NETWORK, trial.loss, {NETWORK: trial.loss.detach()})
            total, more = adversary.pull(predicted, waveform, total, trial)
            metrics |= more
        yield Update("vocoder", total, metrics)

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Mel distance of copy synthesis on the validation clips."""
        vocoder = cast(Vocoder, averaged["vocoder"])
        spectrogram = self.config.spectrogram
        figures = listen(vocoder, self._validation, self.device, lambda log_mel: log_mel)
        image = self.run_dir / "samples" / f"step_{step:07d}.png"
        save_spectrogram_pairs(image, figures.original, figures.decoded, spectrogram)
        return Validation(
            {"mel_distance": figures.mel_distance, "mel_distance_short": figures.short}
        )

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write `model.safetensors`, and the discriminators, if any."""
        provenance = self.provenance.after(progress.step, progress.seconds, progress.metrics)
        vocoder = cast(Vocoder, averaged["vocoder"])
        save_vocoder(self.run_dir / MODEL_NAME, vocoder, self.config, provenance)
        if self._adversary is not None:
            rivals = self._adversary.discriminators
            save_discriminators(self.run_dir / DISCRIMINATORS_NAME, rivals, self.config, provenance)


def vocoder_losses(
    predicted: PredictedSTFT,
    waveform: Tensor,
    target: Tensor,
    spectrogram: SpectrogramConfig,
) -> dict[str, Tensor]:
    """Losses of magnitude, phase and sound, weighted, by name.

    Args:
        predicted: What the vocoder predicted.
        waveform: `[batch, sample]`, the sound of it.
        target: `[batch, sample]`, the true sound.
        spectrogram: Frame settings.
    """
    true = framed_spectrum(target, spectrogram)
    true_magnitude = true.abs()
    true_log_magnitude = true_magnitude.clamp(min=spectrogram.floor).log()
    magnitude_error = predicted.log_magnitude.clamp(min=spectrogram.log_floor) - true_log_magnitude
    return {
        "magnitude": _MAGNITUDE_WEIGHT * magnitude_error.abs().mean(),
        "phase": _PHASE_WEIGHT * phase_losses(predicted.phase, true.angle(), true_magnitude),
        "sound": _SOUND_WEIGHT * magnitude_loss(waveform, target),
        "mel": _MEL_WEIGHT * mel_distance(waveform, target, spectrogram.sample_rate),
    }
