"""What the items of a training batch are told: quality, class, pitch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from audiovae.config import LabelConfig, ModelConfig, SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.latents import Conditions
from audiovae.models.conditioning.label import NO_LABEL, label_index
from audiovae.models.conditioning.pitch import PITCH_CHANNELS
from audiovae.pitch import pitch_track
from audiovae.training.crops import Crops, to_device
from audiovae.training.data import Corpus, Progress, to_float


def with_pitch(
    log_mels: Corpus,
    waveforms: Corpus,
    config: SpectrogramConfig,
    progress: Progress | None = None,
) -> Corpus:
    """A log-mel corpus in memory whose frames hold their pitch behind the bands.

    Args:
        log_mels: `[frame, mel]` of each clip.
        waveforms: The same clips in the same order.
        config: The grid of frames.
        progress: Is told of clips done and of all.
    """
    clips = []
    for index in range(len(log_mels.names)):
        frames = log_mels.clip(index).cpu()
        samples = to_float(waveforms.clip(index)).cpu().numpy().astype(np.float32)
        track = pitch_track(samples, len(frames), config)
        clips.append(torch.cat([frames, track.T.to(frames.dtype)], dim=1))
        if progress:
            progress(index + 1, len(log_mels.names))
    whole = Corpus.of_clips(clips, log_mels.names)
    return whole.labelled(log_mels.labels)


def with_classes(config: ModelConfig, labels: Sequence[str]) -> ModelConfig:
    """The config with the classes of its data filled in, unless it names some itself.

    Raises:
        ConfigError: If the data has a class that the config does not name.
    """
    if config.label is None:
        return config
    found = tuple(sorted(set(labels)))
    classes = config.label.classes or found
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ConfigError(
            f"expected clips of the classes {', '.join(classes)}, got '{unknown[0]}'; name it in "
            "label.classes, or leave that empty"
        )
    label = config.label.model_copy(update={"classes": classes})
    return config.model_copy(update={"label": label})


class ConditionSource:
    """Knows what each clip of a corpus can be told."""

    def __init__(self, config: ModelConfig, corpus: Corpus, device: torch.device) -> None:
        """Look up the classes of a corpus's clips."""
        self._config, self._device = config, device
        self._labels = _label_indices(config.label, corpus)

    def draw(self, crops: Crops, generator: torch.Generator) -> Conditions:
        """Conditions of a training batch: a random lambda, and at times no class or no pitch."""
        config = self._config
        quality = draw_quality(config, generator, self._device)
        label, pitch = self._label_of(crops.clips), self._pitch_of(crops.data)
        if config.label is not None and label is not None:
            told = torch.rand(len(label), generator=generator) >= config.label.dropout
            label = torch.where(to_device(told, self._device), label, NO_LABEL)
        if config.pitch is not None and pitch is not None:
            told = torch.rand(len(pitch), generator=generator) >= config.pitch.dropout
            pitch = pitch * to_device(told, self._device)[:, None, None]
        return replace(quality, label=label, pitch=pitch)

    def of(self, clips: Sequence[int], frames: Tensor, log_lambda: float | None) -> Conditions:
        """All that is known of some clips.

        Args:
            clips: Indices in the corpus.
            frames: `[batch, frame, column]` of the same.
            log_lambda: For all of them.
        """
        quality = Conditions.at_lambda(log_lambda, len(clips), self._device)
        label = self._label_of(torch.tensor(clips))
        return replace(quality, label=label, pitch=self._pitch_of(frames))

    def _label_of(self, clips: Tensor) -> Tensor | None:
        return None if self._labels is None else to_device(self._labels[clips], self._device)

    def _pitch_of(self, frames: Tensor) -> Tensor | None:
        if self._config.pitch is None:
            return None
        columns = frames[..., self._config.spectrogram.num_mels :].float()
        if columns.shape[-1] != PITCH_CHANNELS:
            raise ConfigError(
                "expected frames with their pitch for a [pitch] table, got log-mels alone; train "
                "on a directory of audio, or on shards made with --with-audio"
            )
        return columns.transpose(1, 2).to(self._device)  # [batch, 2, frame]


def draw_quality(
    config: ModelConfig, generator: torch.Generator, device: torch.device
) -> Conditions:
    """A lambda for each item of a batch, log-uniform; none without the conditioning."""
    if config.quality is None:
        return Conditions()
    low, high = math.log(config.quality.min_lambda), math.log(config.quality.max_lambda)
    draw = torch.rand(config.training.batch_size, generator=generator)
    return Conditions(to_device(low + (high - low) * draw, device))


def _label_indices(config: LabelConfig | None, corpus: Corpus) -> Tensor | None:
    """`[clip]`; None without the conditioning."""
    if config is None:
        return None
    labels = corpus.labels or [""] * len(corpus.names)
    return torch.tensor([label_index(config, name) if name else NO_LABEL for name in labels])
