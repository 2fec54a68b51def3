"""Files of made-up music by many instruments: sound to train on where recordings are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from audiovae.audio import Clip, write_audio
from audiovae.config import SpectrogramConfig
from audiovae.training import synthesizer
from audiovae.training.instruments import Instrument, Layer, SoundfontPlayer, draw_instrument
from audiovae.training.phrases import Phrase, draw_note, draw_phrase

_PHRASE_SECONDS = 8.0
_END_SECONDS = 1.0  # of a phrase, in which no note begins
_NOTE_SECONDS = (0.08, 3.0)
_ONSET_SHARE = 0.01  # of the peak: where a note is taken to begin
_LEAD_SECONDS = 0.2  # within which it begins, or is left as it is
_PLAIN_SHARE = 0.5  # of the files, on a soundfont's programs as they are
_RAISED_SHARE = 0.4  # of the files, on the synthesizer above where tunes are played
_HIGHEST_HZ = 16_000.0
_BIT_DEPTH = 16

Samples = NDArray[np.float32]
Play = Callable[[Phrase, int, Generator], Samples]


def render(
    output_dir: Path, soundfont: Path | None, minutes: float, seed: int, *, notes: bool = False
) -> int:
    """Write `synthesizer_0_00000.flac` (player, seed, number) and so on: each by one instrument.

    Args:
        output_dir: Where; files that are there already stay.
        soundfont: What plays; None for the synthesizer.
        minutes: Of sound, in all.
        seed: Everything follows from it; each file from it and its number.
        notes: Single notes and chords, cut where they begin, in place of phrases; `_notes` is in
            their names.

    Returns:
        How many files were written.

    Raises:
        ConfigError: If the soundfont cannot be played.
        AudioReadError: If it is no soundfont.
    """
    rate = SpectrogramConfig().sample_rate
    if soundfont is None:
        name, play = "synthesizer", _on_the_synthesizer(rate)
    else:
        name, play = soundfont.stem, _on_a_soundfont(SoundfontPlayer(soundfont, rate))
    make = _note if notes else _phrase
    output_dir.mkdir(parents=True, exist_ok=True)
    written, index, seconds = 0, 0, 0.0
    while seconds < minutes * 60:
        path = output_dir / f"{name}{'_notes' * notes}_{seed}_{index:05d}.flac"
        draw = np.random.default_rng((seed, index))
        index += 1
        own_seconds, sound = make(draw, play, rate, wanted=not path.exists())
        seconds += own_seconds
        if sound is not None:
            write_audio(path, Clip(sound[None], rate, _BIT_DEPTH))
            written += 1
    return written


def _phrase(
    draw: Generator, play: Play, rate: int, *, wanted: bool
) -> tuple[float, Samples | None]:
    """A file's length, and its sound if it is wanted."""
    if not wanted:
        return _PHRASE_SECONDS, None
    phrase = draw_phrase(draw, _PHRASE_SECONDS - _END_SECONDS)
    return _PHRASE_SECONDS, play(phrase, round(_PHRASE_SECONDS * rate), draw)


def _note(draw: Generator, play: Play, rate: int, *, wanted: bool) -> tuple[float, Samples | None]:
    """The same of a note; some are cut off while they sound, as some samples are."""
    seconds = float(np.exp(draw.uniform(*np.log(_NOTE_SECONDS))))
    if not wanted:
        return seconds, None
    lead, length = round(_LEAD_SECONDS * rate), round(seconds * rate)
    sound = play(draw_note(draw, seconds), lead + length, draw)
    heard = np.abs(sound) > _ONSET_SHARE * np.abs(sound).max()
    start = min(int(heard.argmax()), lead)
    return seconds, sound[start : start + length]


def _on_the_synthesizer(rate: int) -> Play:
    def play(phrase: Phrase, num_samples: int, draw: Generator) -> Samples:
        if draw.random() < _RAISED_SHARE:
            phrase = _raised(phrase, draw)
        return synthesizer.play(phrase, synthesizer.draw_patch(draw), num_samples, rate, draw)

    return play


def _raised(phrase: Phrase, draw: Generator) -> Phrase:
    """A phrase so far up that few partials are left of a note: little bells, beeps, whistles.

    In recordings something else nearly always sounds beside these, and a model that has not met
    them alone gives them back far too quiet.
    """
    highest = max(note.key for note in phrase.notes) + phrase.tuning_semitones
    room = 12 * np.log2(_HIGHEST_HZ / synthesizer.key_hz(highest))
    raised = phrase.tuning_semitones + float(draw.uniform(0, room))
    return replace(phrase, tuning_semitones=raised)


def _on_a_soundfont(player: SoundfontPlayer) -> Play:
    def play(phrase: Phrase, num_samples: int, draw: Generator) -> Samples:
        instrument = Instrument((Layer(int(draw.choice(player.programs))),))
        if draw.random() >= _PLAIN_SHARE:
            instrument = draw_instrument(draw, player.programs)
        return player.play(phrase, instrument, num_samples)

    return play
