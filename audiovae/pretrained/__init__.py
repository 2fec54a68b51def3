"""The weights that ship, found by name; README.md beside this file is their model card."""

from __future__ import annotations

import os
from pathlib import Path

from audiovae.errors import CheckpointError

PRETRAINED_DIR = Path(__file__).parent
VOCODER = "vocoder"
MODEL_NAME = "model.safetensors"
"""What a stage of training writes."""
RUN_MODELS = ("base.safetensors", MODEL_NAME)
"""The model in the folder of a run: of a recipe, or of one stage."""
OWN_VOCODER = "own"
"""Stands for the vocoder that was trained with a model and lies beside it, or else `VOCODER`."""


def is_shipped(name: str | Path) -> bool:
    """Whether a model of that name ships."""
    return os.sep not in str(name) and (PRETRAINED_DIR / f"{name}.safetensors").is_file()


def is_run(path: str | Path) -> bool:
    """Whether a path is the folder of a training run, with its model in it."""
    return any((Path(path) / name).is_file() for name in RUN_MODELS)


def find_checkpoint(name: str | Path) -> Path:
    """Path of a shipped model's file, the given path if there is a file, or the model in a folder.

    Raises:
        CheckpointError: If there is neither.
    """
    if is_shipped(name):
        return PRETRAINED_DIR / f"{name}.safetensors"
    path = Path(name)
    for file in (path, *(path / run for run in RUN_MODELS)):
        if file.is_file():
            return file
    names = sorted(file.stem for file in PRETRAINED_DIR.glob("*.safetensors"))
    raise CheckpointError(
        f"{name}: expected a model file, the folder of a training run, or one of the shipped "
        f"models ({', '.join(names) or 'none'}), found none"
    )


def find_vocoder(model: str | Path, name: str | Path = OWN_VOCODER) -> Path:
    """Path of what sounds a model: `vocoder.safetensors` beside its file, or what is named.

    Raises:
        CheckpointError: If there is no such model or vocoder.
    """
    if name != OWN_VOCODER:
        return find_checkpoint(name)
    beside = find_checkpoint(model).with_name(f"{VOCODER}.safetensors")
    return beside if beside.is_file() else find_checkpoint(VOCODER)
