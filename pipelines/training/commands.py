"""What the training command is asked for, and how it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from audiovae.commands import UsageProblem
from audiovae.config import ModelConfig, load_config, parse_config
from audiovae.config_reading import read_tables, with_settings
from audiovae.errors import ConfigError
from audiovae.pretrained import MODEL_NAME
from audiovae.training.initial import initial_weights
from audiovae.training.state import STATE_NAME
from pipelines.runner.lock import OutputLock
from pipelines.training.corpora import TrainingData
from pipelines.training.recipe import RECORD_NAME, RecipeRun, find_recipe, fine_tuning
from pipelines.training.stage import Stage, run_stage, settled_config


@dataclass(frozen=True)
class TrainingRequest:
    """The command line, checked.

    Attributes:
        data: Directory of audio or shards, or a soundfont.
        output_dir: Where everything goes.
        sources: Of weights to start from.
        resume: Whether a run is to go on.
        asked: Minutes, steps and seed, where given.
        device: Where to train.
        licence: Of the data.
        started: Monotonic clock at the command's start.
        settings: Changes of the config, `table.key=value` each.
        labels: CSV file of classes, if any.
    """

    data: Path
    output_dir: Path
    sources: tuple[str, ...]
    resume: bool
    asked: dict[str, float | int]
    device: torch.device
    licence: str
    started: float
    settings: tuple[str, ...] = ()
    labels: Path | None = None


def train_single(config_path: Path, request: TrainingRequest) -> None:
    """Train the one stage of a config."""
    _check_directory(request, STATE_NAME)
    initial = initial_weights(request.sources) if request.sources else None
    asked = _asked_config(config_path, request.settings)
    stage = Stage(asked, request.output_dir, initial, request.licence)
    config = settled_config(stage, request.asked)
    data = TrainingData(
        request.data, config.spectrogram, request.device, reused=False, labels=request.labels
    )
    with OutputLock(request.output_dir, request.data):
        progress = run_stage(stage, config, data)
    model, card = request.output_dir / MODEL_NAME, request.output_dir / "card.md"
    typer.echo(
        f"done steps={progress.step} minutes={progress.seconds / 60:.1f} model={model} card={card}"
    )


def _asked_config(path: Path, settings: Sequence[str]) -> ModelConfig:
    """The config of a file and of the command line.

    Raises:
        ConfigError: If the file is wrong.
        UsageProblem: If the command line is.
    """
    if not settings:
        return load_config(path)
    tables = read_tables(path)
    try:
        return parse_config(with_settings(tables, settings), source="--set")
    except ConfigError as problem:
        parse_config(tables, source=str(path))  # a file that is wrong by itself is to blame
        raise UsageProblem(str(problem)) from None


def train_recipe(name: str | None, request: TrainingRequest) -> None:
    """Train all stages of a recipe within the minutes; without a name, fine-tune."""
    if "minutes" not in request.asked or "steps" in request.asked:
        raise UsageProblem(
            "--minutes: expected how long all stages may take together, got "
            f"{'--steps' if 'steps' in request.asked else 'nothing'}; give --minutes M"
        )
    if request.settings:
        raise UsageProblem("--set: expected --config with it, got none; change the recipe's files")
    _check_directory(request, RECORD_NAME)
    recipe = fine_tuning(initial_weights(request.sources)) if name is None else find_recipe(name)
    data = TrainingData(
        request.data,
        recipe.stages[0].config.spectrogram,
        request.device,
        reused=True,
        labels=request.labels,
    )
    with OutputLock(request.output_dir, request.data):
        run = RecipeRun(recipe, request.output_dir, request.sources, request.licence)
        shipped = run.run(data, request.asked, request.started)
    minutes = (time.monotonic() - request.started) / 60
    files = " ".join(f"model={path}" for path in shipped)
    typer.echo(f"done minutes={minutes:.1f} {files}")


def _check_directory(request: TrainingRequest, mark: str) -> None:
    """Refuse to overwrite a run, and to resume none."""
    output_dir = request.output_dir
    has_run = (output_dir / mark).exists()
    if has_run and not request.resume:
        raise UsageProblem(
            f"--output-dir: expected a new directory, got the run in {output_dir}; "
            "add --resume to continue it, or choose another directory"
        )
    if request.resume and not has_run:
        raise UsageProblem(
            f"--resume: expected a run to continue, found no {mark} in {output_dir}; "
            "leave out --resume to start one"
        )
