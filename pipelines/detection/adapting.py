"""`--adapt`: the model goes on learning from half of the normal sounds.

The other half, which it has not heard, says what is normal: to a model, sounds that it has learnt
from are too familiar to be compared with new ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

import audiovae
from audiovae.checkpoint import Provenance
from audiovae.commands import Interrupted, UsageProblem
from audiovae.pretrained import find_checkpoint
from audiovae.training.adapting import AdaptingTask, adapting_config
from audiovae.training.initial import MODEL_NAME, initial_weights
from audiovae.training.loop import train
from audiovae.training.state import STATE_NAME
from pipelines.runner.local import resolve_device
from pipelines.runner.lock import OutputLock
from pipelines.runner.recipe import weights_identity
from pipelines.runner.stopping import StopRequest
from pipelines.training.corpora import TrainingData
from pipelines.training_display import TrainingDisplay

_RECORD_NAME: Final = "adapted.json"
_LEAST_FILES: Final = 10


@dataclass(frozen=True)
class Adapted:
    """A model that knows the normal sounds.

    Attributes:
        checkpoint: Path of its file.
        learnt: Names of the normal files that it has learnt from.
    """

    checkpoint: str
    learnt: frozenset[str]


def adapt(checkpoint: str, normal: Path, results: Path, minutes: float, device: str) -> Adapted:
    """Fine-tune a model on half of the normal sounds, or go on, or take what was made before.

    Args:
        checkpoint: Name or path of the model.
        normal: Directory of normal sounds.
        results: Where the run goes, in a folder that its weights and minutes name.
        minutes: How long to train.
        device: Where: auto, cpu or cuda.

    Raises:
        UsageProblem: If there are too few files for two halves.
        Interrupted: If the user asked to stop; the run goes on next time.
    """
    asked = f"{weights_identity(checkpoint)}/{minutes:g}"
    run_dir = results / f"adapted_{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    record, model = run_dir / _RECORD_NAME, run_dir / MODEL_NAME
    if not record.is_file():
        learnt = _train(checkpoint, normal, run_dir, minutes, device)
        temporary = record.with_name(f".{_RECORD_NAME}.tmp")
        temporary.write_text(json.dumps({"learnt": sorted(learnt)}) + "\n", encoding="utf-8")
        os.replace(temporary, record)
    learnt = json.loads(record.read_text(encoding="utf-8"))["learnt"]
    return Adapted(str(model), frozenset(learnt))


def halves(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Places of the names to learn from and of the others; by the names alone.

    Raises:
        UsageProblem: If they are too few.
    """
    if len(names) < _LEAST_FILES:
        raise UsageProblem(
            f"--adapt: expected at least {_LEAST_FILES} normal files, half of them to learn from "
            f"and half to compare with, got {len(names)}; cut long recordings into clips"
        )
    order = sorted(range(len(names)), key=lambda index: _rank(names[index]))
    half = len(names) // 2
    return sorted(order[:half]), sorted(order[half:])


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _train(checkpoint: str, normal: Path, run_dir: Path, minutes: float, device: str) -> list[str]:
    """Train; returns the names of what was learnt from."""
    initial = initial_weights([find_checkpoint(checkpoint)])
    stored = initial.checkpoints["vae"]
    config = adapting_config(stored.config, minutes)
    place = torch.device(resolve_device(device))
    data = TrainingData(normal, config.spectrogram, place, reused=False)
    with OutputLock(run_dir, normal):
        corpus = data.pitched_log_mels if config.pitch else data.log_mels
        learnt, others = halves(corpus.names)
        origin = Provenance(audiovae.__version__, data.description, seed=config.training.seed)
        parts = corpus.subset(learnt), corpus.subset(others)
        task = AdaptingTask(config, *parts, run_dir, place, initial.passed_on(origin, config.kind))
        task.quality_scale = stored.quality_scale
        initial.fill(task.networks)
        with StopRequest() as stop, TrainingDisplay(lambda: stop.requested) as display:
            stop.immediate = False  # the loop saves its state and returns
            resume = (run_dir / STATE_NAME).exists()
            progress = train(task, run_dir, place, resume=resume, watcher=display)
    if progress.fraction < 1.0:
        raise Interrupted("stopped; run the same command again to continue")
    return [corpus.names[index] for index in learnt]
