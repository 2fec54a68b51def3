"""Every figure of one member of the VAE family, on the same sounds as the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from audiovae.analysis.disentanglement import dci
from audiovae.analysis.likelihood import UnitActivity, likelihood
from audiovae.analysis.sample_quality import (
    Features,
    cepstral_features,
    frechet_distance,
    nearest_distances,
)
from audiovae.arithmetic import interpolate
from audiovae.checkpoint import Model, load_model
from audiovae.chunks import padded_frames
from audiovae.files import compress
from audiovae.latents import Conditions, Latents
from audiovae.models.bottlenecks import LatentSample
from audiovae.models.output import VAEOutput
from audiovae.objectives.spectral import mel_distance
from audiovae.spectrogram import log_mel_spectrogram, log_mel_to_db
from audiovae.synthesis import Synthesizer
from pipelines.evaluation.family_inputs import QUALITY, MemberInputs, Sound
from pipelines.evaluation.notes import RenderedNotes

_BATCH: Final = 8
_SAMPLE_SECONDS: Final = 3.0
_POLISH_STEPS: Final = 8
_PAIRS: Final = 8
_STEPS: Final = 9

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Material:
    """What every member is measured on.

    Attributes:
        sounds: Clips held back from training.
        training: Features of training recordings, or None.
        notes: Notes of known pitch, velocity and instrument, or None.
        num_samples: How many to draw from each prior.
        seed: Of all draws.
    """

    sounds: Sequence[Sound]
    training: Features | None
    notes: RenderedNotes | None
    num_samples: int
    seed: int = 0


class Member:
    """One model of the family, ready to be measured."""

    def __init__(self, path: Path, material: Material) -> None:
        """Load a run's model, with its own vocoder if it has one."""
        self.model: Model = load_model(path)
        self._material, self._vae = material, self.model.vae
        self._inputs = MemberInputs(self.model)
        self._synthesizer = Synthesizer(self.model.vocoder, _POLISH_STEPS)
        self._generator = torch.Generator().manual_seed(material.seed)

    @property
    def num_parameters(self) -> int:
        """Of the VAE, codebooks included."""
        books = sum(b.numel() for name, b in self._vae.named_buffers() if name.endswith(".codes"))
        return books + sum(parameter.numel() for parameter in self._vae.parameters())

    @torch.inference_mode()
    def measure(self) -> Iterator[tuple[str, Figures]]:
        """Groups of figures, by name, as they are done."""
        yield "likelihood", self._likelihood()
        yield "reconstruction", self._reconstruction()
        yield "samples", self._samples()
        yield "interpolation", self._interpolation()
        yield "notes", self._notes()

    def _likelihood(self) -> Figures:
        """Terms of the ELBO, with drawn latents."""
        if not self._has_rate:
            return dict.fromkeys(("reconstruction", "kl", "elbo"))
        terms = []
        for sounds in _batches(self._material.sounds):
            log_mel, counts, conditions = self._inputs.of(sounds)
            output = self._vae(log_mel, counts, conditions, self._generator)
            terms.append(likelihood(self._vae, log_mel, output, self.model.config.objective))
        return {
            "reconstruction": float(torch.cat([t.reconstruction for t in terms]).mean()),
            "kl": float(torch.cat([t.kl for t in terms]).mean()),
            "elbo": float(torch.cat([t.elbo for t in terms]).mean()),
        }

    def _reconstruction(self) -> Figures:
        """Rate, distortion and active units with settled latents, and the sound of them."""
        activity, errors, distances, bits, frames = UnitActivity(), [], [], 0.0, 0
        for sounds in _batches(self._material.sounds):
            log_mel, counts, conditions = self._inputs.of(sounds)
            output = self._encode(log_mel, counts, conditions, activity)
            bits += float(output.level_bits().sum())
            frames += int(counts.sum())
            waveforms = self._synthesizer(output.log_mel, counts)
            for index, sound in enumerate(sounds):
                length = sound.log_mel.shape[1]
                decoded = output.log_mel[index, :, :length]
                errors.append(float(log_mel_to_db((decoded - sound.log_mel).abs()).mean()))
                distances.append(self._mel_distance(waveforms[index], sound))
        rate = self.model.config.spectrogram.frames_per_second
        return {
            "kbps": bits / frames * rate / 1000 if self._has_rate else None,
            "file_kbps": self._file_kbps(),
            "log_mel_db": float(np.mean(errors)),
            "mel_distance": float(np.mean(distances)),
            **self._active_units(activity),
        }

    def _encode(
        self, log_mel: Tensor, counts: Tensor, conditions: Conditions, activity: UnitActivity
    ) -> VAEOutput:
        """Settled latents and what they decode to; tells `activity` what the units do."""
        kinds = self._vae.bottlenecks()

        def take(group: int, posterior: Tensor, prior: Tensor, mask: Tensor) -> LatentSample:
            kind = kinds[group]
            sample = kind.settle(posterior, prior)
            middle, drawn = (kind.generate(prior, t, self._generator) for t in (0.0, 1.0))
            activity.observe(group, sample.latent, middle, drawn, mask)
            return sample

        return self._vae.reconstruct(log_mel, counts, conditions, take)

    def _active_units(self, activity: UnitActivity) -> Figures:
        names = self._vae.config.level_names
        counts: dict[str, float] = {}
        for group, level in enumerate(self._vae.config.vae.group_levels):
            key = f"active_units_{names[level]}"
            counts[key] = counts.get(key, 0.0) + activity.active(group)
        return dict(counts)

    def _file_kbps(self) -> float | None:
        """Whole files over their seconds; None for a model that writes none."""
        if self.model.frequency_table is None:
            return None
        quality = QUALITY if self.model.quality_scale else 0
        sizes = [len(compress(s.clip, self.model, quality=quality)) for s in self._material.sounds]
        seconds = sum(sound.clip.duration_seconds for sound in self._material.sounds)
        return sum(sizes) * 8 / 1000 / seconds

    def _mel_distance(self, waveform: Tensor, sound: Sound) -> float:
        target = torch.from_numpy(sound.waveform)
        made = waveform[None, : target.shape[1]]
        return float(mel_distance(made, target, self.model.config.spectrogram.sample_rate))

    def _samples(self) -> Figures:
        """How the sound of samples of the prior compares with recordings."""
        drawn = np.concatenate([cepstral_features(log_mel) for log_mel in self._sample_sounds()])
        real = np.concatenate([cepstral_features(s.log_mel) for s in self._material.sounds])
        training = self._material.training
        nearest = None if training is None else float(nearest_distances(drawn, training).mean())
        return {"frechet": frechet_distance(drawn, real), "nearest": nearest}

    def _sample_sounds(self) -> Iterator[Tensor]:
        """Log-mels `[mel, frame]` of the sound of samples."""
        config = self.model.config.spectrogram
        frames = round(_SAMPLE_SECONDS * config.frames_per_second)
        for first in range(0, self._material.num_samples, _BATCH):
            count = min(_BATCH, self._material.num_samples - first)
            lengths = torch.full((count,), frames)
            conditions = self._inputs.of_samples(first, count)
            log_mel = self._vae.sample(
                lengths, padded_frames(frames), conditions, 1.0, self._generator
            )
            waveform = self._synthesizer(log_mel, lengths)[:, : frames * config.hop_samples]
            yield from log_mel_spectrogram(waveform, config)

    def _interpolation(self) -> Figures:
        """Length of the way between two sounds, in straight lines, and its longest step.

        Both are 1 for a way that is straight and even.
        """
        ratios, longest = [], []
        for latents in self._pairs():
            ends = (
                latents.rows([0], self._frames(latents)),
                latents.rows([1], self._frames(latents)),
            )
            way = [interpolate(*ends, step / (_STEPS - 1)) for step in range(_STEPS)]
            places = np.stack([self._place(one) for one in way])
            steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
            straight = max(float(np.linalg.norm(places[-1] - places[0])), 1e-9)
            ratios.append(float(steps.sum()) / straight)
            longest.append(float(steps.max() / max(steps.mean(), 1e-9)))
        return {"path_ratio": float(np.mean(ratios)), "longest_step": float(np.mean(longest))}

    def _pairs(self) -> Iterator[Latents]:
        """Latents of clips of one length, two by two."""
        sounds = self._material.sounds
        order = np.random.default_rng(self._material.seed).permutation(len(sounds))
        for first, second in list(zip(order[::2], order[1::2], strict=False))[:_PAIRS]:
            log_mel, counts, conditions = self._inputs.of([sounds[first], sounds[second]])
            yield self._vae.encode(log_mel, counts, conditions).latents

    def _place(self, latents: Latents) -> Features:
        decoded = self._vae.decode(latents, self._frames(latents))
        place: Features = cepstral_features(decoded[0, :, : int(latents.num_frames[0])]).mean(
            axis=0
        )
        return place

    @staticmethod
    def _frames(latents: Latents) -> int:
        return latents.groups[-1].shape[2] * latents.strides[-1]

    def _notes(self) -> Figures:
        """How the latents' means over time are arranged by pitch, velocity and instrument."""
        notes = self._material.notes
        if notes is None:
            return dict.fromkeys(("dci_disentanglement", "dci_informativeness"))
        codes = []
        for first in range(0, len(notes.log_mels), _BATCH):
            log_mel = notes.log_mels[first : first + _BATCH]
            counts = torch.full((len(log_mel),), notes.num_frames)
            conditions = self._inputs.untold(len(log_mel))
            latents = self._vae.encode(log_mel, counts, conditions).latents
            means = [group.sum(dim=2) for group in latents.groups]
            codes.append(torch.cat(means, dim=1) / notes.num_frames)
        scores = dci(torch.cat(codes).double().numpy(), notes.factors, self._material.seed)
        return {
            "dci_disentanglement": scores.disentanglement,
            "dci_informativeness": float(np.mean(list(scores.informativeness.values()))),
            **{f"accuracy_{name}": value for name, value in scores.informativeness.items()},
        }

    @property
    def _has_rate(self) -> bool:
        return self._vae.bottlenecks()[0].has_rate


def _batches(sounds: Sequence[Sound]) -> Iterator[Sequence[Sound]]:
    for first in range(0, len(sounds), _BATCH):
        yield sounds[first : first + _BATCH]
