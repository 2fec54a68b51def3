"""Train a model: `python -m pipelines.train --config configs/small.toml --data DIR`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audiovae.commands import UsageProblem, end_process, run_command

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
    """Train a VAE or a vocoder on a directory of audio.

    Writes metrics.csv, validation.csv, samples/*.png, model.safetensors (averaged weights) and
    state.pt, from which --resume continues on the same curve.
    """
    from audiovae.config import load_config

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
    overrides = {"minutes": minutes, "steps": steps, "seed": seed}
    asked = {name: value for name, value in overrides.items() if value is not None}
    model_config = load_config(config)
    training = model_config.training.model_copy(update=asked)
    run(model_config.model_copy(update={"training": training}), data, output_dir, device, licence)


def run(config: ModelConfig, data: Path, output_dir: Path, device: str, licence: str) -> None:
    """Prepare the data, train, and say where the model is."""
    import torch

    from audiovae.training.loop import train as train_task

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageProblem("--device: expected a CUDA device, found none; use --device cpu")
    place = torch.device(name)
    task = _task(config, data, output_dir, place, licence)
    size = sum(p.numel() for network in task.networks.values() for p in network.parameters())
    typer.echo(f"config={config.name} parameters={size / 1e6:.2f}M device={name}")
    has_state = (output_dir / _STATE_NAME).exists()
    progress = train_task(
        task, config.training, output_dir, place, resume=has_state, report=typer.echo
    )
    model = output_dir / "model.safetensors"
    typer.echo(f"done steps={progress.step} minutes={progress.seconds / 60:.1f} model={model}")


def _task(
    config: ModelConfig, data: Path, output_dir: Path, device: torch.device, licence: str
) -> TrainingTask:
    """The task that `config.kind` names, with its corpus."""
    import audiovae
    from audiovae.checkpoint import Provenance
    from audiovae.training.data import load_waveforms, log_mel_corpus
    from audiovae.training.vae import VAETask
    from audiovae.training.vocoder import VocoderTask

    waveforms = load_waveforms(
        data, config.spectrogram.sample_rate, progress=_progress("decoding files")
    )
    provenance = Provenance(
        audiovae_version=audiovae.__version__,
        data=_describe(waveforms, data, config.spectrogram.sample_rate),
        licence=licence,
        seed=config.training.seed,
    )
    if config.kind == "vae":
        corpus = log_mel_corpus(waveforms, config.spectrogram)
        return VAETask(config, *corpus.split(), output_dir, device, provenance)
    return VocoderTask(config, *waveforms.split(), output_dir, device, provenance)


def _describe(corpus: Corpus, data: Path, sample_rate: int) -> str:
    hours = float(corpus.lengths.sum()) / sample_rate / 3600
    return f"{data.name}: {len(corpus.names)} files, {hours:.2f} h"


def _progress(what: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if done % 200 == 0 or done == total:
            typer.echo(f"{what} {done}/{total}")

    return show


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.train")


if __name__ == "__main__":
    end_process(main())
