"""Files of made-up phrases by many instruments: sound to train on where recordings are few."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from audiovae.audio import Clip, write_audio
from audiovae.config import SpectrogramConfig
from audiovae.training import synthesizer
from audiovae.training.instruments import Instrument, Layer, SoundfontPlayer, draw_instrument
from audiovae.training.phrases import Phrase, draw_phrase

_SECONDS = 8.0
_END_SECONDS = 1.0  # in which no note begins
_PLAIN_SHARE = 0.5  # of the phrases, on a soundfont's programs as they are
_BIT_DEPTH = 16

Samples = NDArray[np.float32]
Play = Callable[[Phrase, Generator], Samples]


def render(output_dir: Path, soundfont: Path | None, minutes: float, seed: int) -> int:
    """Write `synthesizer_0_00000.flac` (player, seed, number) and so on: each one phrase by one.

    Args:
        output_dir: Where; files that are there already stay.
        soundfont: What plays; None for the synthesizer.
        minutes: Of sound, in all.
        seed: Everything follows from it; each file from it and its number.

    Returns:
        How many files were written.

    Raises:
        ConfigError: If the soundfont cannot be played.
        AudioReadError: If it is no soundfont.
    """
    rate = SpectrogramConfig().sample_rate
    num_samples = round(_SECONDS * rate)
    if soundfont is None:
        name, play = "synthesizer", _on_the_synthesizer(num_samples, rate)
    else:
        name, play = soundfont.stem, _on_a_soundfont(SoundfontPlayer(soundfont, rate), num_samples)
    output_dir.mkdir(parents=True, exist_ok=True)
    written = 0
    for index in range(math.ceil(minutes * 60 / _SECONDS)):
        path = output_dir / f"{name}_{seed}_{index:05d}.flac"
        if path.exists():
            continue
        draw = np.random.default_rng((seed, index))
        sound = play(draw_phrase(draw, _SECONDS - _END_SECONDS), draw)
        write_audio(path, Clip(sound[None], rate, _BIT_DEPTH))
        written += 1
    return written


def _on_the_synthesizer(num_samples: int, rate: int) -> Play:
    def play(phrase: Phrase, draw: Generator) -> Samples:
        return synthesizer.play(phrase, synthesizer.draw_patch(draw), num_samples, rate, draw)

    return play


def _on_a_soundfont(player: SoundfontPlayer, num_samples: int) -> Play:
    def play(phrase: Phrase, draw: Generator) -> Samples:
        instrument = Instrument((Layer(int(draw.choice(player.programs))),))
        if draw.random() >= _PLAIN_SHARE:
            instrument = draw_instrument(draw, player.programs)
        return player.play(phrase, instrument, num_samples)

    return play
