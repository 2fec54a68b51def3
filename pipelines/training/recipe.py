"""Recipes: stages of training that follow each other within a number of minutes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audiovae.config import ModelConfig, parse_config
from audiovae.config_reading import first_problem, read_tables
from audiovae.errors import ConfigError
from audiovae.replacing import replacing
from audiovae.training.initial import InitialWeights, initial_weights
from pipelines.training.corpora import TrainingData
from pipelines.training.shipping import ship
from pipelines.training.stage import Stage, run_stage, settled_config

RECORD_NAME: Final = "recipe.json"
_ROOT: Final = Path(__file__).parents[2]
_OF_CHECKOUT: Final = _ROOT / "configs" / "recipes"
_OF_WHEEL: Final = _ROOT / "audiovae_configs" / "recipes"
_RECIPES: Final = _OF_CHECKOUT if _OF_CHECKOUT.is_dir() else _OF_WHEEL
_FINE_TUNING: Final = {"vae": (0.6, 2e-4), "vocoder": (0.4, 1.2e-4)}
"""Share of the time and learning rate of each stage: about a third of what training takes."""
_FINE_TUNING_WARM_UP: Final = 50
_ENDLESS_STEPS: Final = 10_000_000  # minutes end it
_MIN_STAGE_SECONDS: Final = 1.0


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _StageTable(_Table):
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    config: str
    kind: str | None = Field(default=None, description="in place of the config's own")
    share: Annotated[float, Field(gt=0)]


class _RecipeTable(_Table):
    reserve_seconds: float = Field(default=0.0, ge=0)
    stages: tuple[_StageTable, ...] = Field(min_length=1)


@dataclass(frozen=True)
class RecipeStage:
    """One stage, and its share of the time."""

    name: str
    config: ModelConfig
    share: float


@dataclass(frozen=True)
class Recipe:
    """Stages in their order.

    Attributes:
        stages: At least one.
        reserve_seconds: Kept back for what comes after the last step: measuring and writing.
    """

    stages: tuple[RecipeStage, ...]
    reserve_seconds: float


def find_recipe(name: str) -> Recipe:
    """The recipe of that name in configs/recipes, or of that file.

    Raises:
        ConfigError: If there is none, or it is no recipe.
    """
    named = _RECIPES / f"{name}.toml"
    path = named if os.sep not in name and named.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _RECIPES.glob("*.toml")))
        raise ConfigError(
            f"--recipe {name}: expected one of {known or 'configs/recipes'}, or the path of a "
            "TOML file, found neither"
        )
    try:
        table = _RecipeTable.model_validate(read_tables(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error, _RecipeTable)}") from None
    names = [stage.name for stage in table.stages]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: expected stages of different names, got {', '.join(names)}")
    stages = [
        RecipeStage(stage.name, _config_of(stage, path.parent), stage.share)
        for stage in table.stages
    ]
    return Recipe(tuple(stages), table.reserve_seconds)


def _config_of(stage: _StageTable, directory: Path) -> ModelConfig:
    tables = read_tables(directory / stage.config)
    if stage.kind is not None:
        tables["kind"] = stage.kind
    return parse_config(tables, source=stage.config)


def fine_tuning(initial: InitialWeights) -> Recipe:
    """Gently on from given weights, on sound of one's own: a low rate, a short warm-up.

    Without discriminators beside the weights the vocoder learns by reconstruction alone: new ones
    would need longer than the rest takes.

    Raises:
        ConfigError: If there are no weights of a VAE or a vocoder, or they are of a timbre model.
    """
    stages = []
    for kind, (share, rate) in _FINE_TUNING.items():
        if kind not in initial.checkpoints:
            continue
        config = initial.checkpoints[kind].config
        if config.kind == "timbre":
            raise ConfigError(
                f"--init {initial.source}: expected a model that learns from a folder of audio, "
                f"got '{config.name}', which learns from a soundfont; add --config "
                "configs/timbre_small.toml, and give the soundfont as --data"
            )
        learning = config.training.model_copy(
            update={
                "learning_rate": rate,
                "warmup_steps": _FINE_TUNING_WARM_UP,
                "steps": _ENDLESS_STEPS,
            }
        )
        start = 0.0 if "discriminators" in initial.checkpoints else 1.0
        rivals = config.adversarial.model_copy(update={"start_fraction": start})
        update = {"name": "custom", "training": learning, "adversarial": rivals}
        stages.append(RecipeStage(kind, config.model_copy(update=update), share))
    if not stages:
        raise ConfigError(
            f"--init {initial.source}: expected weights of a VAE or a vocoder, found neither"
        )
    return Recipe(tuple(stages), reserve_seconds=0.0)


class RecipeRun:
    """A recipe under way: which stages are done, and what time is left."""

    def __init__(
        self, recipe: Recipe, output_dir: Path, sources: tuple[str, ...], licence: str
    ) -> None:
        """Take up the record of an earlier start, if there is one.

        Raises:
            ConfigError: If it is damaged, or of a recipe of other stages.
        """
        self._recipe, self._dir = recipe, output_dir
        self._sources, self._licence = sources, licence
        self._record = output_dir / RECORD_NAME
        self._finished = self._read_record()
        """Seconds of each stage that is done."""
        self._seconds_before = sum(self._finished.values())
        self._started = time.monotonic()

    def run(self, data: TrainingData, asked: dict[str, float | int], started: float) -> list[Path]:
        """Train what is left of the recipe, then put its results together.

        Args:
            data: For all stages.
            asked: `minutes` for all of it, and a seed if one is wanted.
            started: Monotonic clock when the time began to run.

        Returns:
            The model files.
        """
        self._write_record()
        self._started = started
        was_done = len(self._finished) == len(self._recipe.stages)
        for index, part in enumerate(self._recipe.stages):
            if part.name in self._finished:
                typer.echo(f"stage={part.name} is done")
                continue
            self._finished[part.name] = self._train(index, data, asked)
            self._write_record()
        if was_done:
            typer.echo(
                "all stages were done; to train on, give --init with this directory and a new "
                "--output-dir"
            )
        return ship(self._dir, [self._dir / part.name for part in self._recipe.stages])

    def _train(self, index: int, data: TrainingData, asked: dict[str, float | int]) -> float:
        """Train one stage; returns the seconds it took, of all the times it was started."""
        part = self._recipe.stages[index]
        initial = self._initial(part.config, [stage.name for stage in self._recipe.stages[:index]])
        stage = Stage(part.config, self._dir / part.name, initial, self._licence)
        given = {name: value for name, value in asked.items() if name != "minutes"}
        config = settled_config(stage, given)
        _ = data.waveforms  # decoding takes its time out of all stages' alike
        if not stage.has_state:
            left = 60 * asked["minutes"] - self._recipe.reserve_seconds - self._seconds_used()
            shares = [each.share for each in self._recipe.stages[index:]]
            seconds = max(left * part.share / sum(shares), _MIN_STAGE_SECONDS)
            training = config.training.model_copy(update={"minutes": seconds / 60})
            config = config.model_copy(update={"training": training})
        assert config.training.minutes is not None
        typer.echo(f"stage={part.name} minutes={config.training.minutes:.2f}")
        before = time.monotonic()
        progress = run_stage(stage, config, data)
        seconds = time.monotonic() - before
        earlier = max(progress.seconds - seconds, 0.0)
        self._seconds_before += earlier
        return earlier + seconds

    def _seconds_used(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _initial(self, config: ModelConfig, earlier: list[str]) -> InitialWeights | None:
        """What earlier stages wrote, then what the command line names; None to start anew."""
        sources = [*(str(self._dir / name) for name in reversed(earlier)), *self._sources]
        if not sources:
            return None
        initial = initial_weights(sources)
        anew = config.kind != "adversarial" and config.kind not in initial.checkpoints
        return None if anew else initial

    def _read_record(self) -> dict[str, float]:
        if not self._record.is_file():
            return {}
        names = [stage.name for stage in self._recipe.stages]
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            own, finished = list(record["stages"]), dict(record["finished"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._record}: expected the record of a recipe, got a damaged one ({error}); "
                "start anew in another directory"
            ) from None
        if own != names:
            raise ConfigError(
                f"{self._record}: expected a recipe of the stages {', '.join(own)}, got "
                f"{', '.join(names)}; resume with the recipe the run was started with"
            )
        return finished

    def _write_record(self) -> None:
        names = [stage.name for stage in self._recipe.stages]
        record = json.dumps({"stages": names, "finished": self._finished})
        with replacing(self._record) as draft:
            draft.write_text(record + "\n", encoding="utf-8")
