"""The weights that ship, found by name; README.md beside this file is their model card."""

from __future__ import annotations

import os
from pathlib import Path

from audiovae.errors import CheckpointError

PRETRAINED_DIR = Path(__file__).parent
VOCODER = "vocoder"


def find_checkpoint(name: str | Path) -> Path:
    """Path of a shipped model's file, or the given path if there is a file.

    Raises:
        CheckpointError: If there is neither.
    """
    shipped = PRETRAINED_DIR / f"{name}.safetensors"
    if os.sep not in str(name) and shipped.is_file():
        return shipped
    path = Path(name)
    if path.is_file():
        return path
    names = sorted(file.stem for file in PRETRAINED_DIR.glob("*.safetensors"))
    raise CheckpointError(
        f"{name}: expected the path of a model file or one of the shipped models "
        f"({', '.join(names) or 'none'}), found neither"
    )
