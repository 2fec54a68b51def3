"""Notes of known pitch, velocity and instrument, played from a soundfont."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.chunks import pad_frames, padded_frames
from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training.instruments import Instrument, Layer, SoundfontPlayer
from audiovae.training.phrases import Note, Phrase

PROGRAMS: Final = (0, 11, 24, 40, 48, 56, 65, 73)
"""Piano, vibraphone, guitar, violin, strings, trumpet, saxophone, flute."""
KEYS: Final = tuple(range(48, 84, 3))
VELOCITIES: Final = (40, 80, 120)
_SECONDS: Final = 1.0
_HELD_SECONDS: Final = 0.8
_FULL_VELOCITY: Final = 127


@dataclass(frozen=True)
class RenderedNotes:
    """All combinations of instrument, key and velocity.

    Attributes:
        log_mels: `[note, mel, frame]`, padded.
        num_frames: Of each that are signal.
        factors: For each factor its value by note, as whole numbers from 0.
    """

    log_mels: Tensor
    num_frames: int
    factors: dict[str, NDArray[np.int64]]


def render_notes(
    soundfont: Path, config: SpectrogramConfig, progress: Callable[[int, int], None]
) -> RenderedNotes:
    """Play every note; as loud as General MIDI asks, by the square of the velocity.

    Raises:
        AudioVAEError: If the soundfont cannot be played.
    """
    player = SoundfontPlayer(soundfont, config.sample_rate)
    programs = [program for program in PROGRAMS if program in player.programs]
    samples = round(_SECONDS * config.sample_rate)
    plan = list(product(range(len(programs)), range(len(KEYS)), range(len(VELOCITIES))))
    log_mels = []
    for done, (program, key, velocity) in enumerate(plan, start=1):
        note = Note(0.0, _HELD_SECONDS, KEYS[key], VELOCITIES[velocity])
        instrument = Instrument((Layer(programs[program]),))
        sound = player.play(Phrase((note,), 0.0), instrument, samples)
        gain = (VELOCITIES[velocity] / _FULL_VELOCITY) ** 2
        log_mels.append(log_mel_spectrogram(torch.from_numpy(sound * gain)[None], config)[0])
        progress(done, len(plan))
    frames = log_mels[0].shape[1]
    padded = torch.stack([pad_frames(one, padded_frames(frames)) for one in log_mels])
    values = np.array(plan, dtype=np.int64)
    names = ("instrument", "pitch", "velocity")
    return RenderedNotes(padded, frames, {n: values[:, i] for i, n in enumerate(names)})
