"""Electronic instruments to play phrases with: bare waveforms, bells, struck bars and FM.

Recordings hold few bare waveforms and few clean decays, and a model that has met none gives them
back far too quiet. A patch is drawn once and is the same instrument in every phrase. Partials
above the audible are left out, so nothing aliases but the sidebands of a strong modulation
(Chowning, 1973, "The Synthesis of Complex Audio Spectra by Means of Frequency Modulation").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from audiovae.training.phrases import Note, Phrase

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

_NYQUIST_SHARE = 0.9  # partials above are left out
_MAX_HARMONICS = 120
_BELL_RATIOS = (0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.66, 3.0, 4.0, 5.33, 6.66)  # hum to upper partials
_BAR_RATIOS = (1.0, 2.756, 5.404, 8.933, 13.34, 18.64)  # a bar that is free at both ends
_MODULATOR_RATIOS = (0.5, 1.0, 1.0, 1.414, 2.0, 3.0, 3.5, 5.0, 7.0)
_SILENT_DB = 80.0  # how far a note has died away when it ends
_KEY_OF_A4, _HZ_OF_A4 = 69, 440.0
_FULL_VELOCITY = 127


@dataclass(frozen=True, eq=False)
class Patch:
    """What makes an instrument.

    Attributes:
        ratios: `[partial]`, frequencies in those of the key.
        gains: `[partial]`, linear.
        decay_seconds: `[partial]`, time to fall by 60 dB while the key is held; 0: it does not.
        attack_seconds: Rise of every note.
        release_seconds: Time to fall by 60 dB when the key is let go.
        modulator_ratio: Frequency of a sine that moves all phases, in that of the key.
        modulation: Its depth in radians at the beginning; 0: none.
        modulation_seconds: Time in which its depth falls to a third.
        vibrato_semitones: Depth of a vibrato; 0: none.
        vibrato_hz: Its rate.
        breath: Level of noise beside the partials.
    """

    ratios: Values
    gains: Values
    decay_seconds: Values
    attack_seconds: float
    release_seconds: float
    modulator_ratio: float = 1.0
    modulation: float = 0.0
    modulation_seconds: float = 1.0
    vibrato_semitones: float = 0.0
    vibrato_hz: float = 5.0
    breath: float = 0.0


def draw_patch(draw: Generator) -> Patch:
    """Make an instrument up: a held waveform, a plucked or struck one, or FM."""
    kind = draw.choice(("held", "plucked", "bell", "bar", "fm"), p=(0.3, 0.2, 0.15, 0.1, 0.25))
    if kind == "bell":
        ratios = np.array(_BELL_RATIOS) * np.exp(draw.normal(0, 0.02, len(_BELL_RATIOS)))
    elif kind == "bar":
        ratios = np.array(_BAR_RATIOS)
    else:
        ratios = np.arange(1.0, _MAX_HARMONICS + 1)
    gains = np.exp(draw.normal(0, 0.7, len(ratios))) / ratios ** draw.uniform(0.3, 1.5)
    if kind in ("held", "plucked"):
        gains = _waveform(draw, ratios)
    if kind == "plucked":
        stiffness = float(np.exp(draw.uniform(np.log(1e-6), np.log(1e-3))))
        ratios = ratios * np.sqrt(1 + stiffness * ratios**2)  # of a stiff string
    if kind == "fm":
        ratios, gains = np.ones(1), np.ones(1)
    decays = np.zeros(len(ratios))
    if kind != "held" and not (kind == "fm" and draw.random() < 0.4):
        longest = float(np.exp(draw.uniform(np.log(0.15), np.log(8.0))))
        decays = longest / ratios ** draw.uniform(0.0, 1.0)
    struck = kind in ("plucked", "bell", "bar")
    slowest = 0.004 if struck else 0.4
    return Patch(
        ratios,
        gains / np.sqrt(np.sum(gains**2)),
        decays,
        attack_seconds=float(np.exp(draw.uniform(np.log(0.0005), np.log(slowest)))),
        release_seconds=float(np.exp(draw.uniform(np.log(0.02), np.log(3.0 if struck else 1.0)))),
        modulator_ratio=float(draw.choice(_MODULATOR_RATIOS)),
        modulation=float(draw.uniform(0.5, 9.0)) if kind == "fm" else 0.0,
        modulation_seconds=float(np.exp(draw.uniform(np.log(0.05), np.log(4.0)))),
        vibrato_semitones=float(draw.uniform(0.05, 0.6)) if draw.random() < 0.2 else 0.0,
        vibrato_hz=float(draw.uniform(3.0, 7.5)),
        breath=float(draw.uniform(0.001, 0.05)) if draw.random() < 0.2 else 0.0,
    )


def play(
    phrase: Phrase, patch: Patch, num_samples: int, sample_rate: int, draw: Generator
) -> Samples:
    """A phrase on a patch, float32 `[sample]`, at a peak between -30 and 0 dBFS.

    Args:
        phrase: What to play.
        patch: On what.
        num_samples: Length; what sounds longer is cut off.
        sample_rate: Hz.
        draw: Of phases, noise and the level.
    """
    sound = np.zeros(num_samples)
    for note in phrase.notes:
        start = round(note.start_seconds * sample_rate)
        played = play_note(note, patch, phrase.tuning_semitones, sample_rate, draw)
        played = played[: max(0, num_samples - start)]
        sound[start : start + len(played)] += played
    peak = float(np.abs(sound).max())
    level = 10 ** (draw.uniform(-30, 0) / 20)
    return (sound * (level / max(peak, 1e-9))).astype(np.float32)


def play_note(
    note: Note, patch: Patch, tuning: float, sample_rate: int, draw: Generator
) -> Samples:
    """One note, float32 `[sample]`, as long as it sounds.

    Args:
        note: What to play.
        patch: On what.
        tuning: How far it is out of tune, in semitones.
        sample_rate: Hz.
        draw: Of phases and noise.
    """
    hz = key_hz(note.key + tuning)
    release = patch.release_seconds * _SILENT_DB / 60
    seconds = np.arange(round((note.duration_seconds + release) * sample_rate)) / sample_rate
    bend = patch.vibrato_semitones * np.log(2) / 12 / (2 * np.pi * patch.vibrato_hz)
    cycles = seconds - bend * np.cos(2 * np.pi * patch.vibrato_hz * seconds)
    depth = patch.modulation * np.exp(-seconds / patch.modulation_seconds)
    moved = depth * np.sin(2 * np.pi * hz * patch.modulator_ratio * cycles)
    sound = patch.breath * draw.normal(size=len(seconds))
    audible = hz * patch.ratios < _NYQUIST_SHARE * sample_rate / 2
    partials = zip(
        patch.ratios[audible], patch.gains[audible], patch.decay_seconds[audible], strict=True
    )
    for ratio, gain, decay in partials:
        if gain < 1e-5:
            continue
        partial = gain * np.sin(2 * np.pi * (hz * ratio * cycles + draw.random()) + moved)
        sound += partial * _falling(seconds, decay) if decay else partial
    sound *= np.minimum(seconds / patch.attack_seconds, 1.0)
    sound *= _falling(np.maximum(seconds - note.duration_seconds, 0.0), patch.release_seconds)
    return (sound * (note.velocity / _FULL_VELOCITY) ** 2).astype(np.float32)


def key_hz(key: float) -> float:
    """Frequency of a key, numbered as in MIDI, in equal temperament."""
    return float(_HZ_OF_A4 * 2 ** ((key - _KEY_OF_A4) / 12))


def _waveform(draw: Generator, harmonics: Values) -> Values:
    """Gains of the harmonics of a sine, triangle, square, saw or pulse, or of a drawn spectrum."""
    odd = harmonics % 2 == 1
    shapes = {
        "sine": (harmonics == 1).astype(float),
        "triangle": odd / harmonics**2,
        "square": odd / harmonics,
        "saw": 1 / harmonics,
        "pulse": np.abs(np.sin(np.pi * harmonics * draw.uniform(0.05, 0.45))) / harmonics,
        "drawn": np.exp(draw.normal(0, 1, len(harmonics))) / harmonics ** draw.uniform(0.5, 2.5),
    }
    shape: Values = shapes[str(draw.choice(tuple(shapes)))]
    if draw.random() < 0.3:  # through a low-pass filter
        shape = shape / np.sqrt(1 + (harmonics / draw.uniform(2, 30)) ** 4)
    return shape


def _falling(seconds: Values, decay: float) -> Values:
    """By 60 dB in `decay` seconds."""
    falling: Values = np.exp(-np.log(1000) / decay * seconds)
    return falling
