"""Training of the vocoder's first, non-adversarial stage.

The pseudo-inverse of the mel filterbank and explicit phase losses teach in minutes what a GAN
alone takes hours for; the data is taught band limits, silence, fades, clipping and levels, without
which the vocoder fails on just those (arXiv:2406.08196, arXiv:2311.11545).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.checkpoint import Provenance, save_vocoder
from audiovae.config import ModelConfig
from audiovae.models.vocoder import PredictedSTFT, Vocoder
from audiovae.objectives.spectral import (
    SHORT_WINDOWS,
    complex_stft_loss,
    framed_spectrum,
    mel_distances,
    phase_losses,
)
from audiovae.spectrogram import log_mel_spectrogram, padded_samples
from audiovae.training.augment import augment_waveform
from audiovae.training.data import Corpus, draw_crops, to_float
from audiovae.training.figures import save_spectrogram_pairs
from audiovae.training.loop import Update, Validation
from audiovae.training.precision import autocast
from audiovae.training.state import Progress

_MAGNITUDE_WEIGHT = 1.0
_PHASE_WEIGHT = 1.0
_STFT_WEIGHT = 2.0
_MEL_WEIGHT = 1.0
_VALIDATION_SECONDS = 4


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
        self.networks: Mapping[str, nn.Module] = {"vocoder": self.vocoder}
        self._train, self._validation = train.to(device), validation
        self._predict = self.vocoder.predict
        if config.training.compile and device.type == "cuda":
            self._predict = torch.compile(self.vocoder.predict)

    def updates(self, generator: torch.Generator) -> Iterator[Update]:
        """One step on the magnitude, the phase and the sound of random crops."""
        training, spectrogram = self.config.training, self.config.spectrogram
        samples = training.crop_frames * spectrogram.hop_samples
        crops = draw_crops(self._train, training.batch_size, samples, generator, self.device)
        target = augment_waveform(to_float(crops.data), spectrogram.sample_rate, generator)
        log_mel = log_mel_spectrogram(target, spectrogram)
        with autocast(training, self.device):
            predicted = self._predict(log_mel)
        losses = self._losses(predicted, target, log_mel)
        yield Update(
            "vocoder",
            torch.stack(list(losses.values())).sum(),
            {name: loss.detach() for name, loss in losses.items()},
        )

    def _losses(
        self, predicted: PredictedSTFT, target: Tensor, log_mel: Tensor
    ) -> dict[str, Tensor]:
        spectrogram = self.config.spectrogram
        true = framed_spectrum(target, spectrogram)
        true_magnitude = true.abs()
        true_log_magnitude = true_magnitude.clamp(min=spectrogram.floor).log()
        magnitude_error = (
            predicted.log_magnitude.clamp(min=spectrogram.log_floor) - true_log_magnitude
        )
        waveform = self.vocoder.to_waveform(predicted)
        own_log_mel = log_mel_spectrogram(waveform, spectrogram)
        return {
            "magnitude": _MAGNITUDE_WEIGHT * magnitude_error.abs().mean(),
            "phase": _PHASE_WEIGHT * phase_losses(predicted.phase, true.angle(), true_magnitude),
            "stft": _STFT_WEIGHT * complex_stft_loss(waveform, target),
            "mel": _MEL_WEIGHT * (own_log_mel - log_mel).abs().mean(),
        }

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Mel distance of copy synthesis on the validation clips."""
        vocoder = cast(Vocoder, averaged["vocoder"])
        spectrogram = self.config.spectrogram
        limit = _VALIDATION_SECONDS * spectrogram.sample_rate
        totals, shorts = [], []
        for index in range(len(self._validation.names)):
            clip = to_float(self._validation.clip(index)[:limit]).to(self.device)
            missing = padded_samples(len(clip), spectrogram) - len(clip)
            target = functional.pad(clip, (0, missing))[None]  # [1, sample]
            log_mel = log_mel_spectrogram(target, spectrogram)
            waveform = vocoder(log_mel)
            distances = mel_distances(waveform, target, spectrogram.sample_rate)
            totals.append(sum(float(d) for d in distances.values()))
            shorts.append(sum(float(distances[w]) for w in SHORT_WINDOWS))
            if index == 0:
                image = self.run_dir / "samples" / f"step_{step:07d}.png"
                decoded = log_mel_spectrogram(waveform, spectrogram)
                save_spectrogram_pairs(image, log_mel[0], decoded[0], spectrogram)
        return Validation({"mel_distance": fmean(totals), "mel_distance_short": fmean(shorts)})

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write `model.safetensors`."""
        provenance = self.provenance.after(progress.step, progress.seconds, progress.metrics)
        vocoder = cast(Vocoder, averaged["vocoder"])
        save_vocoder(self.run_dir / "model.safetensors", vocoder, self.config, provenance)
