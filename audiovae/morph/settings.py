"""How a morph is made: what its two kinds share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from audiovae.audio import AudioFormat
from audiovae.config import SpectrogramConfig
from audiovae.synthesis import DEFAULT_POLISH_STEPS
from audiovae.timbre.moves import Course, Curve, spaced
from audiovae.transform import DEFAULT_QUALITY


@dataclass(frozen=True)
class MorphSettings:
    """How one sound becomes another.

    Attributes:
        curve: How the way is travelled.
        levels: The levels that move besides the timbre code; None as the kind of morph does.
        keep_loudness: Let every half second be as loud as in the sound that gives the content.
        quality: For a model that is conditioned on it.
        format: Of the files; None goes by their suffix.
        polish_steps: Griffin-Lim steps from the vocoder's phase.
    """

    curve: Curve = "linear"
    levels: tuple[int, ...] | None = None
    keep_loudness: bool = False
    quality: int = DEFAULT_QUALITY
    format: AudioFormat | None = None
    polish_steps: int = DEFAULT_POLISH_STEPS


def step_amounts(steps: int, curve: Curve = "linear") -> tuple[float, ...]:
    """Amounts from 0 to 1, both included, as a curve spaces them.

    >>> step_amounts(3)
    (0.0, 0.5, 1.0)
    """
    positions = torch.linspace(0, 1, steps, dtype=torch.float64)
    return tuple(spaced(positions, curve).tolist())


def glide_course(
    seconds: float, glide_seconds: float, config: SpectrogramConfig, curve: Curve
) -> Course:
    """A course from 0 to 1 over the first `glide_seconds` of a sound, or over all of it (0)."""
    length = min(seconds, glide_seconds) or seconds
    frames = max(1, round(length * config.frames_per_second))
    return Course(0.0, 1.0, frames, curve)
