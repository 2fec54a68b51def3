"""The results of a recipe, put together: model files, cards and their images in one place."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from audiovae.checkpoint import load_checkpoint
from audiovae.pretrained import MODEL_NAME
from audiovae.replacing import replacing
from audiovae.training.card import CURVES_NAME, model_card
from audiovae.training.initial import DISCRIMINATORS_NAME, VOCODER_NAME

_SHIPPED = {"vae": "base", "vocoder": "vocoder"}


def ship(output_dir: Path, stage_dirs: Sequence[Path]) -> list[Path]:
    """Copy the last model file of each kind, with a card that shows every stage behind it.

    Args:
        output_dir: Gets `base.safetensors`, `vocoder.safetensors`, a card each, the curves and a
            sample of each stage, and the discriminators to go on with.
        stage_dirs: Finished stages, in their order.

    Returns:
        The model files that ship.
    """
    images = [image for directory in stage_dirs for image in _copy_images(directory, output_dir)]
    newest: dict[str, Path] = {}
    for directory in stage_dirs:
        for name in (MODEL_NAME, VOCODER_NAME):
            if (directory / name).is_file():
                newest[load_checkpoint(directory / name).kind] = directory / name
        if (directory / DISCRIMINATORS_NAME).is_file():
            _copy(directory / DISCRIMINATORS_NAME, output_dir / DISCRIMINATORS_NAME)
    shipped = []
    for kind, path in newest.items():
        target = output_dir / f"{_SHIPPED[kind]}.safetensors"
        _copy(path, target)
        card = model_card(load_checkpoint(target), images)
        target.with_suffix(".md").write_text(card, encoding="utf-8")
        shipped.append(target)
    return shipped


def _copy_images(directory: Path, output_dir: Path) -> list[str]:
    """Curves and newest sample of a stage, under its name."""
    found = [directory / CURVES_NAME, *sorted((directory / "samples").glob("*.png"))[-1:]]
    names = []
    for image, what in zip(found, ("curves", "sample"), strict=False):
        if image.is_file():
            names.append(f"{directory.name}_{what}.png")
            _copy(image, output_dir / names[-1])
    return names


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as draft:
        shutil.copyfile(source, draft)
