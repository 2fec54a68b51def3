"""Train a model: `python -m pipelines.train --config configs/small.toml --data DIR`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audiovae.commands import Interrupted, UsageProblem, end_process, run_command

if TYPE_CHECKING:
    import torch

    from audiovae.config import ModelConfig
    from audiovae.training.data import Corpus
    from audiovae.training.loop import TrainingTask

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
_STATE_NAME = "state.pt"


@app.command(
    epilog="[bold]Example:[/bold]  python -m pipelines.train --config configs/small.toml "
    "--data recordings/ --output-dir runs/mine --minutes 60"
)
def train(
    config: Annotated[Path, typer.Option(help="A TOML file of configs/, or your own.")],
    data: Annotated[Path, typer.Option(help="Directory of audio, or of log-mel shards.")],
    output_dir: Annotated[Path, typer.Option(help="Where logs, state and model go.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output-dir.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after this long; the schedule fits it.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, crops and noise.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: the GPU if there is one.")
    ] = "auto",
    licence: Annotated[
        str, typer.Option(help="Licence of the data, kept in the model file.")
    ] = "not stated",
) -> None:
    """Train a VAE or a vocoder on a directory of audio, or a VAE on log-mel shards.

    Writes metrics.csv, validation.csv, samples/*.png, model.safetensors (averaged weights) with
    its card.md, and state.pt, from which --resume continues on the same curve.
    """
    from audiovae.config import load_config

    model_config = load_config(config)
    _check_directory(output_dir, resume)
    flags = {"minutes": minutes, "steps": steps, "seed": seed}
    asked = {name: value for name, value in flags.items() if value is not None}
    _run(model_config, asked, data, output_dir, device, licence)


def _check_directory(output_dir: Path, resume: bool) -> None:
    """Refuse to overwrite a run, and to resume none."""
    has_state = (output_dir / _STATE_NAME).exists()
    if has_state and not resume:
        raise UsageProblem(
            f"--output-dir: expected a new directory, got the run in {output_dir}; "
            "add --resume to continue it, or choose another directory"
        )
    if resume and not has_state:
        raise UsageProblem(
            f"--resume: expected a run to continue, found no {_STATE_NAME} in {output_dir}; "
            "leave out --resume to start one"
        )


def _run(
    config: ModelConfig,
    asked: dict[str, float | int],
    data: Path,
    output_dir: Path,
    device: str,
    licence: str,
) -> None:
    """Prepare the data, train, and say where the model is."""
    from audiovae.training.card import write_model_card
    from audiovae.training.loop import train as train_task
    from audiovae.training.state import resumed_config, save_run_config
    from pipelines.runner.lock import OutputLock
    from pipelines.runner.stopping import StopRequest
    from pipelines.training_display import TrainingDisplay

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    place = _device(device)
    has_state = (output_dir / _STATE_NAME).exists()
    if has_state:
        config = resumed_config(config, output_dir)
        own_seed = config.training.seed
        if asked.get("seed", own_seed) != own_seed:
            raise UsageProblem(f"--seed: expected that of the run, {own_seed}, got {asked['seed']}")
    training = config.training.model_copy(update=asked)
    config = config.model_copy(update={"training": training})
    with OutputLock(output_dir, data):
        task = _task(config, data, output_dir, place, licence)
        save_run_config(config, output_dir)
        size = sum(p.numel() for network in task.networks.values() for p in network.parameters())
        typer.echo(f"config={config.name} parameters={size / 1e6:.2f}M device={place}")
        with StopRequest() as stop, TrainingDisplay(lambda: stop.requested) as display:
            stop.immediate = False  # the loop saves its state and returns
            progress = train_task(task, output_dir, place, resume=has_state, watcher=display)
    if progress.fraction < 1.0:
        raise Interrupted(
            f"stopped at step {progress.step}; run the same command with --resume to continue"
        )
    model = output_dir / "model.safetensors"
    card = write_model_card(output_dir)
    typer.echo(
        f"done steps={progress.step} minutes={progress.seconds / 60:.1f} model={model} card={card}"
    )


def _device(name: str) -> torch.device:
    import torch

    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UsageProblem("--device: expected a CUDA device, found none; use --device cpu")
    return torch.device(("cuda" if has_gpu else "cpu") if name == "auto" else name)


def _task(
    config: ModelConfig, data: Path, output_dir: Path, device: torch.device, licence: str
) -> TrainingTask:
    """The task that `config.kind` names, with its corpus."""
    import audiovae
    from audiovae.checkpoint import Provenance
    from audiovae.training.vae import VAETask
    from audiovae.training.vocoder import VocoderTask

    corpus, positions_per_second = _corpus(config, data)
    hours = float(corpus.lengths.sum()) / positions_per_second / 3600
    provenance = Provenance(
        audiovae_version=audiovae.__version__,
        data=f"{data.resolve().name}: {len(corpus.names)} files, {hours:.2f} h",
        licence=licence,
        seed=config.training.seed,
    )
    make = VAETask if config.kind == "vae" else VocoderTask
    return make(config, *corpus.split(), output_dir, device, provenance)


def _corpus(config: ModelConfig, data: Path) -> tuple[Corpus, float]:
    """What the kind of model learns from, and how many of its positions make a second."""
    from audiovae.training.data import load_waveforms, log_mel_corpus
    from audiovae.training.shards import is_shards, load_shards
    from pipelines.training_display import CountingDisplay

    spectrogram = config.spectrogram
    if is_shards(data):
        if config.kind != "vae":
            raise UsageProblem(
                f"--data: expected a directory of audio for a {config.kind}, got log-mel shards; "
                "name the audio they were made from"
            )
        return load_shards(data, spectrogram), spectrogram.frames_per_second
    with CountingDisplay("decoded_files") as display:
        waveforms = load_waveforms(data, spectrogram.sample_rate, progress=display.show)
    if config.kind == "vae":
        return log_mel_corpus(waveforms, spectrogram), spectrogram.frames_per_second
    return waveforms, spectrogram.sample_rate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.train")


if __name__ == "__main__":
    end_process(main())
