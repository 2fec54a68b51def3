"""What a reader of an evaluation needs to know of how it was made."""

from __future__ import annotations

from pathlib import Path

import audiovae
from audiovae.analysis.opinion import has_pesq, has_visqol
from audiovae.checkpoint import Model
from pipelines.evaluation.opus import OpusEncoder


def missing_measures(opus: OpusEncoder | None, visqol: bool) -> list[str]:
    """What cannot be measured here, a line each."""
    notes = []
    if opus is None:
        notes.append("no Opus rows: opusenc (of opus-tools) is not on PATH")
    if not visqol:
        notes.append("no ViSQOL: switched off")
    elif not has_visqol():
        notes.append("no ViSQOL: pip install --no-deps visqol-python libsvm-official")
    if not has_pesq():
        notes.append("no PESQ: pip install pesq")
    return notes


def facts_of(model: Model, polish: int, max_seconds: float, opus: OpusEncoder | None) -> list[str]:
    """Which model was measured, and how."""
    with_vocoder = f"its vocoder and {polish} polishing steps"
    sound = with_vocoder if model.vocoder is not None else "Griffin-Lim"
    facts = [
        f"model {Path(model.name).stem} (id {model.id}, {model.provenance.steps} steps), "
        f"sounded by {sound}, audiovae {audiovae.__version__}",
        f"compared at {model.config.spectrogram.sample_rate} Hz, the first {max_seconds:g} s of "
        "each file",
    ]
    return [*facts, f"Opus: {opus.version()}, no tags, no padding"] if opus else facts
