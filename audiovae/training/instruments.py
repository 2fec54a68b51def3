"""Instruments to play phrases with: the programs of a soundfont, and many that are made up.

A few dozen programs are few sounds to learn from, so most instruments are made up: two programs
at once, a program whose samples are played from other keys (which moves its formants), or a patch
of the synthesizer; with another envelope, or in a room. What makes an instrument is drawn once, so
it is the same instrument in every phrase.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from audiovae.errors import AudioReadError, ConfigError
from audiovae.training.phrases import Note, Phrase
from audiovae.training.synthesizer import Patch, draw_patch, play_note

Samples = NDArray[np.float32]

_NO_MELODY = (*range(112, 114), *range(115, 128), 47, 55)
"""General MIDI programs without a pitch of their own: drums, noises, hits."""
_MELODIC_PROGRAMS = tuple(program for program in range(128) if program not in _NO_MELODY)
_TAIL_PIECE_SECONDS = 0.2
_MAX_TAIL_PIECES = 10
_SILENT_SAMPLES = 512
_LEVEL = 0.05  # root mean square of a clip's sound
_SILENT = 1e-5
_CHANNEL = 0


@dataclass(frozen=True)
class Layer:
    """One program of an instrument.

    Attributes:
        program: General MIDI number.
        borrowed_semitones: Samples come from a key this far above, tuned back down.
        detuned_semitones: How far it is out of tune.
        gain: Of the layer.
    """

    program: int
    borrowed_semitones: int = 0
    detuned_semitones: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True)
class Instrument:
    """What makes a sound of its own out of a soundfont and the synthesizer.

    Attributes:
        layers: Programs and patches that sound together.
        attack_seconds: Fade-in of every note.
        decay_seconds: Time in which a note falls by 60 dB, or 0: as the program has it.
        room_seconds: Time in which the room's sound falls by 60 dB, or 0: no room.
        room_gain: Of the room's sound beside the instrument's own.
        seed: Of the room, and of a patch's phases and noise.
    """

    layers: tuple[Layer | Patch, ...]
    attack_seconds: float = 0.0
    decay_seconds: float = 0.0
    room_seconds: float = 0.0
    room_gain: float = 0.0
    seed: int = 0


def draw_instrument(draw: Generator, programs: tuple[int, ...]) -> Instrument:
    """Make an instrument up, of programs."""
    count = 2 if draw.random() < 0.4 else 1
    layers: list[Layer] = []
    for program in draw.choice(programs, size=count, replace=False):
        borrowed = int(draw.integers(-7, 8)) if draw.random() < 0.6 else 0
        detuned = float(draw.normal(0, 0.08)) if count == 2 else 0.0
        gain = float(np.exp(draw.normal(0, 0.5))) if layers else 1.0
        layers.append(Layer(int(program), borrowed, detuned, gain))
    return _shaped(draw, tuple(layers))


def draw_electronic(draw: Generator) -> Instrument:
    """Make an instrument up, of a patch."""
    return _shaped(draw, (draw_patch(draw),))


def _shaped(draw: Generator, layers: tuple[Layer | Patch, ...]) -> Instrument:
    """Some with an envelope of their own, some in a room."""
    shaped, in_room = draw.random() < 0.4, draw.random() < 0.35
    return Instrument(
        layers,
        attack_seconds=float(draw.choice((0.0, 0.02, 0.08, 0.2))) if shaped else 0.0,
        decay_seconds=float(draw.choice((0.0, 0.3, 0.8, 2.0, 5.0))) if shaped else 0.0,
        room_seconds=float(np.exp(draw.uniform(np.log(0.2), np.log(2.5)))) if in_room else 0.0,
        room_gain=float(draw.uniform(0.1, 0.8)) if in_room else 0.0,
        seed=int(draw.integers(2**31)),
    )


class SoundfontPlayer:
    """Plays phrases on instruments; needs the package tinysoundfont."""

    def __init__(self, soundfont: Path, sample_rate: int) -> None:
        """Load a `.sf2` or `.sf3` file.

        Raises:
            ConfigError: If tinysoundfont is not installed, or the soundfont has no melodic program.
            AudioReadError: If the file is no soundfont.
        """
        try:
            from tinysoundfont import Synth
        except ImportError:
            raise ConfigError(
                "expected the package tinysoundfont to play a soundfont, found none; install it "
                "with: pip install --no-deps tinysoundfont"
            ) from None
        self._rate = sample_rate
        self._synth = Synth(samplerate=sample_rate)
        try:
            self._font = self._synth.sfload(str(soundfont))
        except Exception as error:  # noqa: BLE001 - the binding raises bare exceptions
            raise AudioReadError(
                f"{soundfont}: expected a soundfont (.sf2 or .sf3), got something else ({error})"
            ) from None
        self.programs = tuple(
            program
            for program in _MELODIC_PROGRAMS
            if self._synth.sfpreset_name(self._font, 0, program) is not None
        )
        if not self.programs:
            raise ConfigError(f"{soundfont}: expected programs of bank 0 with a pitch, found none")

    def program_name(self, program: int) -> str:
        """What the soundfont calls a program of bank 0."""
        return str(self._synth.sfpreset_name(self._font, 0, program))

    def play(self, phrase: Phrase, instrument: Instrument, num_samples: int) -> Samples:
        """A phrase on an instrument, all clips at one level: float32 `[sample]`."""
        sound, draw = np.zeros(num_samples, np.float32), np.random.default_rng(instrument.seed)
        for note in phrase.notes:
            start = round(note.start_seconds * self._rate)
            for layer in instrument.layers:
                if isinstance(layer, Patch):
                    played = play_note(note, layer, phrase.tuning_semitones, self._rate, draw)
                else:
                    played = layer.gain * self._note(note, layer, phrase.tuning_semitones)
                played = self._shape(played, instrument)[: max(0, num_samples - start)]
                sound[start : start + len(played)] += played
        if instrument.room_seconds:
            sound += self._room(sound, instrument)
        level = float(np.sqrt(np.mean(sound**2)))
        return sound * np.float32(_LEVEL / level) if level > 0 else sound

    def _note(self, note: Note, layer: Layer, tuning: float) -> Samples:
        synth, key = self._synth, note.key + layer.borrowed_semitones
        synth.program_select(_CHANNEL, self._font, 0, layer.program)
        synth.set_tuning(_CHANNEL, tuning + layer.detuned_semitones - layer.borrowed_semitones)
        synth.noteon(_CHANNEL, key, note.velocity)
        pieces = [self._generate(note.duration_seconds)]
        synth.noteoff(_CHANNEL, key)
        for _ in range(_MAX_TAIL_PIECES):
            pieces.append(self._generate(_TAIL_PIECE_SECONDS))
            if np.abs(pieces[-1][-_SILENT_SAMPLES:]).max() < _SILENT:
                break
        synth.sounds_off(_CHANNEL)
        return np.concatenate(pieces)

    def _generate(self, seconds: float) -> Samples:
        stereo = self._synth.generate(round(seconds * self._rate))
        mono: Samples = np.frombuffer(stereo, np.float32).reshape(-1, 2).mean(axis=1)
        return mono

    def _shape(self, note: Samples, instrument: Instrument) -> Samples:
        """A note under the instrument's own envelope."""
        if not instrument.attack_seconds and not instrument.decay_seconds:
            return note
        seconds = np.arange(len(note), dtype=np.float32) / self._rate
        if instrument.attack_seconds:
            note = note * np.minimum(seconds / instrument.attack_seconds, 1)
        if instrument.decay_seconds:
            note = note * np.exp(-np.log(1000) / instrument.decay_seconds * seconds)
        return note.astype(np.float32)

    def _room(self, sound: Samples, instrument: Instrument) -> Samples:
        """What a room adds: noise that dies away, as its answer to an impulse."""
        seconds = np.arange(round(instrument.room_seconds * self._rate)) / self._rate
        noise = np.random.default_rng(instrument.seed).normal(size=len(seconds))
        answer = noise * np.exp(-np.log(1000) / instrument.room_seconds * seconds)
        answer *= instrument.room_gain / np.sqrt(np.sum(answer**2))
        echo: Samples = fftconvolve(sound, answer.astype(np.float32))[: len(sound)]
        return echo.astype(np.float32)
