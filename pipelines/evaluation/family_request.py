"""What a comparison of the VAE family is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FamilyRequest:
    """What is asked for.

    Attributes:
        members: Runs, folders of runs, model files or names.
        data: Directory of clips that no run has trained on.
        train_data: Training recordings, as audio or shards, for the nearest neighbours.
        soundfont: Plays the notes for disentanglement.
        max_seconds: Of each clip.
        num_samples: Drawn from each prior.
    """

    members: Sequence[str]
    data: Path
    train_data: Path | None
    soundfont: Path | None
    max_seconds: float
    num_samples: int
