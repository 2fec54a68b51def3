"""Short pieces of music to be played by one instrument after the other.

Melodies walk through a scale, mostly in steps, with rhythms that repeat; chords, arpeggios,
melodies over chords and single long notes are among them. All follows from the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 3, 5, 7, 8, 11),
    (0, 2, 4, 7, 9),
    tuple(range(12)),
)
_STEPS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
_STEP_WEIGHTS = (1, 2, 5, 9, 2, 9, 5, 2, 1)
_BEATS = (0.5, 1, 1, 1, 1.5, 2, 3)
_REST_SHARE = 0.12
_LOWEST_KEY, _HIGHEST_KEY = 33, 96
_USUAL_CENTRES = (48, 77)
_WIDE_CENTRES = (38, 88)
_WIDE_SHARE = 0.2
_MAX_LEAD_SECONDS = 0.3
_MIN_NOTE_SECONDS = 0.06
_TOUCHING_SECONDS = 0.05
_CHORD_SHARE = 0.15
_HELD_SHARE = (0.2, 1.2)


@dataclass(frozen=True)
class Note:
    """One note; `key` and `velocity` as in MIDI."""

    start_seconds: float
    duration_seconds: float
    key: int
    velocity: int


@dataclass(frozen=True)
class Phrase:
    """Notes in any order, and how much all are out of tune."""

    notes: tuple[Note, ...]
    tuning_semitones: float

    @property
    def is_one_voice(self) -> bool:
        """Whether no note begins while another is held, so that there is one pitch at a time."""
        order = sorted(self.notes, key=lambda note: note.start_seconds)
        ends = [note.start_seconds + note.duration_seconds for note in order]
        starts = [note.start_seconds for note in order[1:]]
        return all(
            end < start + _TOUCHING_SECONDS for end, start in zip(ends, starts, strict=False)
        )


class _Voice:
    """Draws pitches and durations of one phrase."""

    def __init__(self, draw: Generator, seconds: float) -> None:
        low, high = _WIDE_CENTRES if draw.random() < _WIDE_SHARE else _USUAL_CENTRES
        self.draw, self.seconds = draw, seconds
        self.lead = float(draw.uniform(0, _MAX_LEAD_SECONDS))
        self.beat = float(np.exp(draw.uniform(np.log(0.14), np.log(0.6))))
        self.rhythm = tuple(draw.choice(_BEATS, size=int(draw.integers(1, 5))))
        self.articulation = float(draw.uniform(0.55, 1.05))
        self.loudness = int(draw.integers(60, 111))
        scale = _SCALES[draw.integers(len(_SCALES))]
        root, centre = int(draw.integers(12)), int(draw.integers(low, high))
        keys = range(_LOWEST_KEY, _HIGHEST_KEY + 1)
        self.keys = [key for key in keys if (key - root) % 12 in scale]
        self.place = int(np.argmin([abs(key - centre) for key in self.keys]))
        self.home = self.place

    def step(self) -> None:
        """Walk through the scale, back towards home when far from it."""
        weights = np.array(_STEP_WEIGHTS, float)
        away = self.place - self.home
        weights *= np.exp(-0.12 * away * np.array(_STEPS))
        move = int(self.draw.choice(_STEPS, p=weights / weights.sum()))
        self.place = int(np.clip(self.place + move, 0, len(self.keys) - 1))

    def key(self, above: int = 0) -> int:
        """The key `above` scale steps over the place."""
        return self.keys[min(self.place + above, len(self.keys) - 1)]

    def note(self, start: float, duration: float, key: int, softer: int = 0) -> Note:
        velocity = int(np.clip(self.loudness - softer + self.draw.normal(0, 8), 30, 127))
        end = min(start + duration * self.articulation, self.seconds)
        return Note(start, max(end - start, _MIN_NOTE_SECONDS), key, velocity)


def draw_phrase(draw: Generator, seconds: float) -> Phrase:
    """Draw a phrase whose notes begin within `seconds`."""
    makers: tuple[Callable[[_Voice], list[Note]], ...] = (
        _melody,
        _melody,
        _melody,
        _chords,
        _chords,
        _arpeggio,
        _melody_over_chords,
        _long_notes,
    )
    make = makers[draw.integers(len(makers))]
    voice = _Voice(draw, seconds)
    notes = make(voice)
    tuning = float(draw.normal(0, 0.15)) if draw.random() < 0.5 else 0.0
    return Phrase(tuple(notes), tuning)


def draw_note(draw: Generator, seconds: float) -> Phrase:
    """Draw a note, now and then a chord, that begins at once and is let go within `seconds`."""
    voice = _Voice(draw, seconds)
    size = int(draw.integers(2, 5)) if draw.random() < _CHORD_SHARE else 1
    duration = seconds * float(draw.uniform(*_HELD_SHARE))
    notes = tuple(voice.note(0.0, duration, voice.key(2 * index)) for index in range(size))
    return Phrase(notes, float(draw.normal(0, 0.15)))


def _melody(voice: _Voice) -> list[Note]:
    notes: list[Note] = []
    time, beat = voice.lead, 0
    while time < voice.seconds - 2 * _MIN_NOTE_SECONDS:
        duration = voice.beat * float(voice.rhythm[beat % len(voice.rhythm)])
        beat += 1
        voice.step()
        if not notes or voice.draw.random() > _REST_SHARE:
            notes.append(voice.note(time, duration, voice.key()))
        time += duration
    return notes


def _chords(voice: _Voice, softer: int = 0) -> list[Note]:
    notes, time = [], voice.lead
    size = int(voice.draw.integers(2, 5))
    length = float(voice.draw.uniform(0.5, 2.0))
    while time < voice.seconds - 2 * _MIN_NOTE_SECONDS:
        voice.step()
        spread = float(voice.draw.choice((0.0, 0.0, 0.03)))
        for index in range(size):
            start = time + index * spread
            notes.append(voice.note(start, length, voice.key(2 * index), softer))
        time += length
    return notes


def _arpeggio(voice: _Voice) -> list[Note]:
    notes, time = [], voice.lead
    pattern = voice.draw.permutation(int(voice.draw.integers(3, 7)))
    held = bool(voice.draw.random() < 0.4)
    while time < voice.seconds - 2 * _MIN_NOTE_SECONDS:
        voice.step()
        for index in pattern:
            if time < voice.seconds - 2 * _MIN_NOTE_SECONDS:
                duration = voice.beat * (3 if held else 1)
                notes.append(voice.note(time, duration, voice.key(2 * int(index))))
                time += voice.beat
    return notes


def _melody_over_chords(voice: _Voice) -> list[Note]:
    melody = _melody(voice)
    voice.home = voice.place = max(0, voice.home - 7)
    return melody + _chords(voice, softer=12)


def _long_notes(voice: _Voice) -> list[Note]:
    notes, time = [], voice.lead
    while time < voice.seconds - 2 * _MIN_NOTE_SECONDS:
        duration = float(voice.draw.uniform(0.7, 3.0))
        voice.step()
        notes.append(voice.note(time, duration, voice.key()))
        time += duration + float(voice.draw.choice((0.0, 0.2, 0.8)))
    return notes
