"""What the members of the family are given: sounds, and what each member can be told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from audiovae.audio import Clip, Waveform
from audiovae.checkpoint import Model
from audiovae.chunks import pad_frames, padded_frames
from audiovae.compressed import quality_lambda
from audiovae.latents import Conditions
from audiovae.models.conditioning.label import NO_LABEL, label_index
from audiovae.pitch import pitch_track

QUALITY: Final = 6
"""Step of the quality scale at which a model that has one is measured."""


@dataclass(frozen=True)
class Sound:
    """One clip that is measured on.

    Attributes:
        clip: Mono, at the models' rate.
        log_mel: `[mel, frame]`.
        label: Its class.
    """

    clip: Clip
    log_mel: Tensor
    label: str

    @property
    def waveform(self) -> Waveform:
        """`[1, sample]`."""
        return self.clip.waveform


class MemberInputs:
    """Batches for one model."""

    def __init__(self, model: Model) -> None:
        """Look at what the model is conditioned on."""
        self._model = model

    def of(self, sounds: Sequence[Sound]) -> tuple[Tensor, Tensor, Conditions]:
        """Log-mels padded to one shape, their frames, and all that the model can be told."""
        counts = torch.tensor([sound.log_mel.shape[1] for sound in sounds])
        shape = padded_frames(int(counts.max()))
        log_mel = torch.stack([pad_frames(sound.log_mel, shape) for sound in sounds])
        config = self._model.config
        known = config.label.classes if config.label else ()
        labels = [
            label_index(config.label, s.label) if s.label in known else NO_LABEL for s in sounds
        ]
        tracks = None
        if config.pitch is not None:
            tracks = torch.stack([self._pitch(sound, shape) for sound in sounds])
        return log_mel, counts, self._told(labels, tracks)

    def _pitch(self, sound: Sound, frames: int) -> Tensor:
        track = pitch_track(
            sound.waveform[0], sound.log_mel.shape[1], self._model.config.spectrogram
        )
        return pad_frames(track, frames)

    def of_samples(self, first: int, count: int) -> Conditions:
        """The classes in turn, and no pitch."""
        classes = self._model.config.label.classes if self._model.config.label else ()
        labels = [1 + (first + i) % len(classes) if classes else NO_LABEL for i in range(count)]
        return self._told(labels, None)

    def untold(self, count: int) -> Conditions:
        """What may be said of sounds of which nothing is known."""
        return self._told([NO_LABEL] * count, None)

    def _told(self, labels: Sequence[int], pitch: Tensor | None) -> Conditions:
        log_lambda = quality_lambda(self._model, QUALITY)
        label = torch.tensor(list(labels)) if self._model.config.label else None
        quality = Conditions.at_lambda(log_lambda, len(labels), self._model.device)
        return replace(quality, label=label, pitch=pitch)
