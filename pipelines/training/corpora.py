"""The data of a training command: decoded once, on the device, for all its stages."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from audiovae.commands import UsageProblem
from audiovae.config import ModelConfig, SpectrogramConfig
from audiovae.labels import clip_labels
from audiovae.training.conditions import with_pitch
from audiovae.training.data import Corpus, load_waveforms, log_mel_corpus
from audiovae.training.shard_index import is_shards
from audiovae.training.shards import load_shard_waveforms, load_shards
from pipelines.training_display import CountingDisplay


class TrainingData:
    """A directory of audio or of shards, as the corpora that the kinds of model learn from."""

    def __init__(
        self,
        path: Path,
        spectrogram: SpectrogramConfig,
        device: torch.device,
        *,
        reused: bool,
        labels: Path | None = None,
    ) -> None:
        """Nothing is read before it is asked for; if `reused`, by stages of several kinds."""
        self.path, self.device, self._labels = path, device, labels
        self._spectrogram, self._reused = spectrogram, reused
        self._description = ""

    @cached_property
    def waveforms(self) -> Corpus:
        """Samples, for what makes sound."""
        if is_shards(self.path):
            return self._described(load_shard_waveforms(self.path, self._spectrogram))
        with CountingDisplay("decoded_files") as display:
            corpus = load_waveforms(self.path, self._spectrogram.sample_rate, progress=display.show)
        return self._described(corpus.to(self.device))

    @cached_property
    def log_mels(self) -> Corpus:
        """Log-mel frames, for a VAE."""
        if is_shards(self.path):
            return self._described(load_shards(self.path, self._spectrogram))
        corpus = log_mel_corpus(self.waveforms, self._spectrogram)
        if not self._reused:
            del self.waveforms
        return corpus.to(self.device)

    @cached_property
    def pitched_log_mels(self) -> Corpus:
        """Log-mel frames with their pitch, for a VAE that is told it; all of it in memory."""
        waveforms = self.waveforms
        shards = is_shards(self.path)
        log_mels = self.log_mels if shards else log_mel_corpus(waveforms, self._spectrogram)
        with CountingDisplay("pitched_files") as display:
            corpus = with_pitch(log_mels, waveforms, self._spectrogram, display.show)
        return corpus.to(self.device)

    def corpus_for(self, config: ModelConfig) -> Corpus:
        """What a model of this config learns from, its clips with their classes if it needs them.

        Raises:
            ConfigError: If the data does not hold what it needs.
        """
        if config.kind != "vae":
            return self.waveforms
        corpus = self.pitched_log_mels if config.pitch else self.log_mels
        if config.label is None:
            return corpus
        return corpus.labelled(clip_labels(corpus.names, self.path, self._labels))

    @property
    def description(self) -> str:
        """Name, files and hours of what was read, for the model file."""
        return self._description

    def require(self, spectrogram: SpectrogramConfig) -> None:
        """Refuse a model of another spectrogram than the data was prepared for.

        Raises:
            UsageProblem: If it differs.
        """
        if spectrogram != self._spectrogram:
            raise UsageProblem(
                "expected stages of one [spectrogram] table, got two; train them one by one"
            )

    def _described(self, corpus: Corpus) -> Corpus:
        samples = corpus.arrays[0].ndim == 1
        rate = self._spectrogram.sample_rate if samples else self._spectrogram.frames_per_second
        hours = float(corpus.lengths.sum()) / rate / 3600
        name = self.path.resolve().name
        self._description = f"{name}: {len(set(corpus.names))} files, {hours:.2f} h"
        return corpus
