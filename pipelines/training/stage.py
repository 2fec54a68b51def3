"""One stage of training: from a config and its data to a model file and its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import typer

import audiovae
from audiovae.checkpoint import Provenance
from audiovae.commands import Interrupted, UsageProblem
from audiovae.config import ModelConfig
from audiovae.training.adversarial import AdversarialTask
from audiovae.training.card import write_model_card
from audiovae.training.compiling import forget_compiled
from audiovae.training.conditions import with_classes
from audiovae.training.initial import InitialWeights
from audiovae.training.loop import TrainingTask, train
from audiovae.training.state import STATE_NAME, Progress, resumed_config, save_run_config
from audiovae.training.vae import VAETask
from audiovae.training.vocoder import VocoderTask
from pipelines.runner.local import available_cores
from pipelines.runner.stopping import StopRequest
from pipelines.training.corpora import TrainingData
from pipelines.training_display import CountingDisplay, TrainingDisplay


@dataclass(frozen=True)
class Stage:
    """What one stage trains, and where.

    Attributes:
        config: Model and training settings.
        run_dir: Where logs, state and model go.
        initial: Weights to start from, if any.
        licence: Of the data, kept in the model file.
    """

    config: ModelConfig
    run_dir: Path
    initial: InitialWeights | None
    licence: str

    @property
    def has_state(self) -> bool:
        """Whether it was started before."""
        return (self.run_dir / STATE_NAME).exists()


def settled_config(stage: Stage, asked: dict[str, float | int]) -> ModelConfig:
    """The config a stage runs with: adopted from its weights, and what the command line asks.

    Raises:
        UsageProblem: If a run that goes on is given another seed.
        ConfigError: If it is not the config the run was started with.
    """
    config = stage.config
    if stage.initial is not None:
        config = stage.initial.adopted(config)
    if stage.has_state:
        config = resumed_config(config, stage.run_dir)
        own_seed = config.training.seed
        if asked.get("seed", own_seed) != own_seed:
            raise UsageProblem(f"--seed: expected that of the run, {own_seed}, got {asked['seed']}")
    training = config.training.model_copy(update=asked)
    return config.model_copy(update={"training": training})


def run_stage(stage: Stage, config: ModelConfig, data: TrainingData) -> Progress:
    """Train until the stage is done, and write its card.

    Raises:
        Interrupted: If it was stopped before; its state is saved.
    """
    data.require(config.spectrogram)
    forget_compiled(data.device)
    torch.backends.cudnn.benchmark = True  # shapes are fixed, so the fastest kernels are looked for
    task = _task(stage, config, data)
    stage.run_dir.mkdir(parents=True, exist_ok=True)
    save_run_config(task.config, stage.run_dir)
    size = sum(p.numel() for network in task.networks.values() for p in network.parameters())
    typer.echo(f"config={config.name} parameters={size / 1e6:.2f}M device={data.device}")
    with StopRequest() as stop, TrainingDisplay(lambda: stop.requested) as display:
        stop.immediate = False  # the loop saves its state and returns
        progress = train(task, stage.run_dir, data.device, resume=stage.has_state, watcher=display)
    if progress.fraction < 1.0 or stop.requested:
        raise Interrupted(
            f"stopped at step {progress.step}; run the same command with --resume to continue"
        )
    write_model_card(stage.run_dir)
    return progress


def _task(stage: Stage, config: ModelConfig, data: TrainingData) -> TrainingTask:
    """The task that `config.kind` names, with its corpus and its first weights."""
    if config.kind == "timbre":
        return _timbre_task(stage, config, data)
    makers: dict[str, type[VAETask | VocoderTask | AdversarialTask]] = {
        "vae": VAETask,
        "vocoder": VocoderTask,
        "adversarial": AdversarialTask,
    }
    corpus = data.corpus_for(config)
    config = with_classes(config, corpus.labels)
    origin = _provenance(stage, config, data.description)
    task = makers[config.kind](config, *corpus.split(), stage.run_dir, data.device, origin)
    if isinstance(task, AdversarialTask):
        if stage.initial is None:
            raise UsageProblem(
                "expected --init with trained weights for kind 'adversarial', got none; --init "
                "base takes those that ship"
            )
        stage.initial.fill(task.parts)
        task.quality_scale = stage.initial.checkpoints["vae"].quality_scale
    elif stage.initial is not None:
        stage.initial.fill(task.networks)
    return task


def _timbre_task(stage: Stage, config: ModelConfig, data: TrainingData) -> TrainingTask:
    """The task whose data is played from a soundfont."""
    from audiovae.training.pairs import build_pairs
    from audiovae.training.timbre import TimbreTask

    with CountingDisplay("played_phrases") as display:
        sets = build_pairs(
            data.path, stage.run_dir, config, display.show, workers=available_cores()
        )
    origin = _provenance(stage, config, data.path.name)
    task = TimbreTask(config, sets, stage.run_dir, data.device, origin)
    if stage.initial is not None:
        stage.initial.fill(task.networks)
        task.is_warm_start = True
    return task


def _provenance(stage: Stage, config: ModelConfig, data: str) -> Provenance:
    provenance = Provenance(
        audiovae_version=audiovae.__version__,
        data=data,
        licence=stage.licence,
        seed=config.training.seed,
    )
    return stage.initial.passed_on(provenance, config.kind) if stage.initial else provenance
