"""Train a model: `python -m pipelines.train --config configs/small.toml --data DIR`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from audiovae.commands import UsageProblem, end_process, run_command
from pipelines.options import Device

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="[bold]Example:[/bold]  python -m pipelines.train --config configs/small.toml "
    "--data recordings/ --output-dir runs/mine --minutes 60\n\n"
    "[bold]Fine-tuning:[/bold]  python -m pipelines.train --init base --data my_folder/ "
    "--output-dir runs/mine --minutes 10\n\n"
    "[bold]All stages:[/bold]  python -m pipelines.train --recipe full --data recordings/ "
    "--output-dir runs/full --minutes 28"
)
def train(
    data: Annotated[
        Path, typer.Option(help="Directory of audio, or of shards; for timbre, a soundfont.")
    ],
    output_dir: Annotated[Path, typer.Option(help="Where logs, state and model go.")],
    config: Annotated[
        Path | None, typer.Option(help="One stage: a TOML file of configs/, or your own.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="All stages: full, small, tiny, or the path of a TOML file."),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights to start from: a model's name, a file or a run; alone: fine-tune."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output-dir.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after this long; the schedule fits it.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, crops and noise.")] = None,
    device: Device = "auto",
    licence: Annotated[
        str, typer.Option(help="Licence of the data, kept in the model file.")
    ] = "not stated",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the config: objective.beta=4, vae.width=320, ..."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns file and class, for a \\[label] table. Default: what a "
            "manifest.csv beside the files says, else the names of their folders."
        ),
    ] = None,
) -> None:
    """Train a model on your sound: one stage, all of them, or on from weights that are there.

    A stage writes metrics.csv, validation.csv, samples/*.png, model.safetensors (averaged weights)
    with its card.md, and state.pt, from which --resume continues on the same curve. A recipe does
    so in a folder a stage, and writes base.safetensors and vocoder.safetensors beside them. With
    --init, the sizes of the given weights win over those of the config.
    """
    import torch

    from pipelines.runner.local import resolve_device
    from pipelines.training.commands import TrainingRequest, train_recipe, train_single
    from pipelines.training.memory import memory_explained

    started = time.monotonic()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if (config is None) == (recipe is None) and (config is not None or not init):
        raise UsageProblem(
            "expected --config for one stage, --recipe for all of them, or --init alone to "
            f"fine-tune, got {'the first two' if config else 'none of them'}"
        )
    flags = {"minutes": minutes, "steps": steps, "seed": seed}
    request = TrainingRequest(
        data=data,
        output_dir=output_dir,
        sources=tuple(init or ()),
        resume=resume,
        asked={name: value for name, value in flags.items() if value is not None},
        device=torch.device(resolve_device(device)),
        licence=licence,
        started=started,
        settings=tuple(settings or ()),
        labels=labels,
    )
    with memory_explained():
        if config is not None:
            train_single(config, request)
        else:
            train_recipe(recipe, request)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.train")


if __name__ == "__main__":
    end_process(main())
