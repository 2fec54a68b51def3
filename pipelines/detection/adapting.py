"""`--adapt`: a small network learns from the normal sounds what is not normal."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

import audiovae
from audiovae.analysis.anomaly import require_enough
from audiovae.analysis.profile import BLOCK_FRAMES
from audiovae.checkpoint import Provenance, load_model
from audiovae.commands import Interrupted
from audiovae.generation import Sampler, SamplingSettings
from audiovae.pretrained import MODEL_NAME, find_checkpoint
from audiovae.training.adapting import AdaptingTask, adapting_config
from audiovae.training.decoding import audio_paths
from audiovae.training.initial import initial_weights
from audiovae.training.loop import train
from audiovae.training.state import STATE_NAME
from pipelines.runner.local import resolve_device
from pipelines.runner.lock import OutputLock
from pipelines.runner.recipe import weights_identity
from pipelines.runner.stopping import StopRequest
from pipelines.training.corpora import TrainingData
from pipelines.training_display import TrainingDisplay

if TYPE_CHECKING:
    from audiovae.training.disturbances import Frames

_DRAWN_SOUNDS: Final = 24
_DRAWN_FRAMES: Final = 512


def adapt(checkpoint: str, normal: Path, results: Path, minutes: float, device: str) -> str:
    """Train a network on the normal sounds, or go on, or take what was made before.

    Args:
        checkpoint: Name or path of the model.
        normal: Directory of normal sounds.
        results: Where the run goes, in a folder that model, minutes and normal files name.
        minutes: How long to train.
        device: Where: auto, cpu or cuda.

    Returns:
        The path of a model file that holds the model and the network.

    Raises:
        ConfigError: If there is too little normal sound to compare with afterwards.
        Interrupted: If the user asked to stop; the run goes on next time.
    """
    asked = f"{weights_identity(checkpoint)}/{minutes:g}/{_state_of(normal)}"
    run_dir = results / f"adapted_{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    model = run_dir / MODEL_NAME
    if not model.is_file():
        _train(checkpoint, normal, run_dir, minutes, torch.device(resolve_device(device)))
    return str(model)


def _state_of(directory: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of every audio file: a folder that changed is learnt from anew."""
    return [
        (str(path.relative_to(directory)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in audio_paths(directory)
        if path.is_file()  # not a broken link
    ]


def _train(
    checkpoint: str, normal: Path, run_dir: Path, minutes: float, device: torch.device
) -> None:
    initial = initial_weights([find_checkpoint(checkpoint)])
    stored = initial.checkpoints["vae"]
    config = adapting_config(stored.config, minutes)
    data = TrainingData(normal, config.spectrogram, torch.device("cpu"), reused=False)
    with OutputLock(run_dir, normal):
        normal_sounds = data.log_mels
        require_enough([-(-frames // BLOCK_FRAMES) for frames in normal_sounds.lengths.tolist()])
        origin = Provenance(audiovae.__version__, data.description, seed=config.training.seed)
        provenance = initial.passed_on(origin, config.kind)
        foreign = _drawn_sounds(checkpoint, device)
        task = AdaptingTask(config, normal_sounds, foreign, stored, run_dir, device, provenance)
        with StopRequest() as stop, TrainingDisplay(lambda: stop.requested) as display:
            stop.immediate = False  # the loop saves its state and returns
            resume = (run_dir / STATE_NAME).exists()
            progress = train(task, run_dir, device, resume=resume, watcher=display)
    if progress.fraction < 1.0:
        raise Interrupted("stopped; run the same command again to continue")


def _drawn_sounds(checkpoint: str, device: torch.device) -> list[Frames]:
    """Sounds of any kind, from the model's prior."""
    model = load_model(checkpoint, str(device), vocoder=None)
    sampler = Sampler(model, SamplingSettings((1.0,) * len(model.config.level_names)))
    drawn = (sampler.log_mel(_DRAWN_FRAMES, seed) for seed in range(_DRAWN_SOUNDS))
    return [log_mel.numpy(force=True) for log_mel in drawn]
