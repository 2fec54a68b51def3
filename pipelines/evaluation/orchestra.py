"""Phrases that no model was trained on, played by a few instruments of a soundfont."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiovae.errors import ConfigError
from audiovae.training.instruments import Instrument, Layer, SoundfontPlayer
from audiovae.training.phrases import Phrase, draw_phrase

_STREAM = 71  # apart from those of training
_SECONDS = 6.0
_END_SECONDS = 0.5  # in which no note begins
_CLASSIFIER_PHRASES = 12


@dataclass(frozen=True)
class Orchestra:
    """Every phrase by every instrument.

    Attributes:
        soundfont: Its file's name.
        names: Of the instruments.
        sample_rate: Hz.
        one_voice: Of each phrase, whether it has one pitch at a time.
        sounds: `sounds[phrase][instrument]`, `[sample]` each.
        others: The same of further phrases, for a classifier to learn from.
    """

    soundfont: str
    names: tuple[str, ...]
    sample_rate: int
    one_voice: tuple[bool, ...]
    sounds: tuple[tuple[Tensor, ...], ...]
    others: tuple[tuple[Tensor, ...], ...]


def play(
    soundfont: Path,
    programs: tuple[int, ...],
    num_phrases: int,
    seed: int,
    sample_rate: int,
    progress: Callable[[int, int], None],
) -> Orchestra:
    """Play phrases, every second one of a single voice.

    Raises:
        AudioReadError: If the file is no soundfont.
        ConfigError: If it lacks a program, or tinysoundfont is missing.
    """
    player = SoundfontPlayer(soundfont, sample_rate)
    missing = sorted(set(programs) - set(player.programs))
    if missing:
        raise ConfigError(
            f"{soundfont}: expected melodic programs {', '.join(map(str, programs))}, lacks "
            f"{missing[0]}; choose others with --programs"
        )
    total = num_phrases + _CLASSIFIER_PHRASES
    phrases, played = [], []
    for index in range(total):
        phrases.append(_phrase(seed, index))
        played.append(_all_play(player, phrases[-1], programs, sample_rate))
        progress(index + 1, total)
    return Orchestra(
        soundfont.name,
        tuple(player.program_name(program) for program in programs),
        sample_rate,
        tuple(phrase.is_one_voice for phrase in phrases[:num_phrases]),
        tuple(played[:num_phrases]),
        tuple(played[num_phrases:]),
    )


def _phrase(seed: int, index: int) -> Phrase:
    draw = np.random.default_rng((seed, _STREAM, index))
    while True:
        phrase = draw_phrase(draw, _SECONDS - _END_SECONDS)
        if phrase.is_one_voice == (index % 2 == 0):
            return phrase


def _all_play(
    player: SoundfontPlayer, phrase: Phrase, programs: tuple[int, ...], sample_rate: int
) -> tuple[Tensor, ...]:
    samples = round(_SECONDS * sample_rate)
    instruments = [Instrument((Layer(program),)) for program in programs]
    return tuple(torch.from_numpy(player.play(phrase, one, samples)) for one in instruments)
