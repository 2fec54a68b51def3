"""Every way to play one instrument's phrase on another one, against the true rendition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from audiovae.analysis.envelope_swap import (
    WorldParts,
    has_world,
    swap_envelope,
    world_parts,
)
from audiovae.analysis.timbre_metrics import (
    InstrumentClassifier,
    TimbreDistances,
    timbre_distances,
)
from audiovae.arithmetic import transfer
from audiovae.audio import Clip
from audiovae.checkpoint import Model
from audiovae.clips import decode, encode
from audiovae.latents import Latents
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.synthesis import griffin_lim
from pipelines.evaluation.orchestra import Orchestra

COPY_INPUT: Final = "copy-input"
COPY_TARGET: Final = "copy-target (another phrase by the target)"
TRANSFER: Final = "**transfer**"
CEILING: Final = "decode of the truth's latents (ceiling)"
GRIFFIN_LIM: Final = "Griffin-Lim of the truth's log-mel"
WORLD: Final = "WORLD envelope swap"
PLAIN: Final = "plain VAE, mean difference"
_OF_TARGET: Final = frozenset({COPY_TARGET, CEILING, GRIFFIN_LIM})
"""Ways that do not look at the source, so that all sources share what they make."""


@dataclass(frozen=True)
class Trial:
    """One phrase, from one instrument to another, by their indices in an orchestra.

    Attributes:
        phrase: What is played.
        source: Who plays it.
        target: Who should.
        reference_phrase: What the target is heard playing: all that is known of it.
    """

    phrase: int
    source: int
    target: int
    reference_phrase: int


@dataclass(frozen=True)
class TimbreRow:
    """What one way made of one trial.

    Attributes:
        way: One of the constants above.
        trial: Which.
        is_target: Whether a classifier that knows the originals takes it for the target.
        distances: To the truth.
    """

    way: str
    trial: Trial
    is_target: bool
    distances: TimbreDistances


class TimbreBench:
    """Runs every way on one trial after another."""

    def __init__(self, model: Model, plain: Model | None, orchestra: Orchestra) -> None:
        """Teach the classifier the instruments.

        Args:
            model: With a timbre code.
            plain: A model without one, for comparison.
            orchestra: What is played.
        """
        self.model, self.plain, self.orchestra = model, plain, orchestra
        self.rate = orchestra.sample_rate
        clips = [clip for phrase in orchestra.others for clip in phrase]
        labels = [i for phrase in orchestra.others for i in range(len(phrase))]
        self.classifier = InstrumentClassifier(clips, labels, self.rate)
        self._kept: dict[tuple[str, int, int], TimbreRow] = {}
        self._parts: dict[tuple[int, int], WorldParts] = {}
        self._latents: dict[tuple[str, int, int], Latents] = {}

    def trials(self) -> Iterator[Trial]:
        """All ordered pairs of instruments, for every phrase; references from the next phrase."""
        count, players = len(self.orchestra.sounds), range(len(self.orchestra.names))
        for phrase in range(count):
            for source in players:
                for target in players:
                    if source != target:
                        yield Trial(phrase, source, target, (phrase + 1) % count)

    def run(self, trial: Trial) -> list[TimbreRow]:
        """A row for every way."""
        rows = []
        for way, make in self._ways().items():
            key = (way, trial.phrase, trial.target)
            row = self._kept.get(key) or self._row(way, make, trial)
            if way in _OF_TARGET:
                self._kept[key] = row
            rows.append(replace(row, trial=trial))
        return rows

    def _row(self, way: str, make: Callable[[Trial], Tensor], trial: Trial) -> TimbreRow:
        truth, made = self.sound(trial.phrase, trial.target), make(trial)
        one_voice = self.orchestra.one_voice[trial.phrase]
        distances = timbre_distances(made, truth, self.rate, with_pitch=one_voice)
        return TimbreRow(way, trial, self.classifier(made) == trial.target, distances)

    def sound(self, phrase: int, instrument: int) -> Tensor:
        """`[sample]`: a phrase by an instrument."""
        return self.orchestra.sounds[phrase][instrument]

    def latents(self, model: Model, phrase: int, instrument: int) -> Latents:
        """Of a phrase by an instrument; kept, for it is part of many trials."""
        key = (model.id, phrase, instrument)
        if key not in self._latents:
            self._latents[key] = self.encode(model, self.sound(phrase, instrument))
        return self._latents[key]

    def encode(self, model: Model, sound: Tensor) -> Latents:
        """Of a sound `[sample]`."""
        return encode(Clip(sound[None].numpy(), self.rate), model)

    def decode(self, model: Model, latents: Latents) -> Tensor:
        """Latents of a phrase as sound `[sample]`."""
        like = Clip(self.sound(0, 0)[None].numpy(), self.rate)
        return torch.from_numpy(decode(latents, model, like=like).waveform[0])

    def transferred(self, model: Model, trial: Trial, amount: float = 1.0) -> Tensor:
        """The phrase with the timbre of the reference, `[sample]`."""
        source = self.latents(model, trial.phrase, trial.source)
        target = self.latents(model, trial.reference_phrase, trial.target)
        return self.decode(model, transfer(source, target, amount))

    def _ways(self) -> dict[str, Callable[[Trial], Tensor]]:
        ways: dict[str, Callable[[Trial], Tensor]] = {
            COPY_INPUT: lambda t: self.sound(t.phrase, t.source),
            COPY_TARGET: lambda t: self.sound(t.reference_phrase, t.target),
            TRANSFER: lambda t: self.transferred(self.model, t),
            CEILING: self._reconstructed,
            GRIFFIN_LIM: self._griffin_lim,
        }
        if has_world():
            ways[WORLD] = self._envelope_swapped
        plain = self.plain
        if plain is not None:
            ways[PLAIN] = lambda t: self.transferred(plain, t)
        return ways

    def _reconstructed(self, trial: Trial) -> Tensor:
        latents = self.latents(self.model, trial.phrase, trial.target)
        # Without the detail, with which it would be the truth itself through the vocoder.
        return self.decode(self.model, replace(latents, details=()))

    def _griffin_lim(self, trial: Trial) -> Tensor:
        truth = self.sound(trial.phrase, trial.target)
        config = self.model.config.spectrogram
        return griffin_lim(log_mel_spectrogram(truth[None], config), config)[0, : len(truth)]

    def _envelope_swapped(self, trial: Trial) -> Tensor:
        played = self._world_parts(trial.phrase, trial.source)
        return swap_envelope(played, self._world_parts(trial.reference_phrase, trial.target))

    def _world_parts(self, phrase: int, instrument: int) -> WorldParts:
        key = (phrase, instrument)
        if key not in self._parts:
            self._parts[key] = world_parts(self.sound(*key), self.rate)
        return self._parts[key]
