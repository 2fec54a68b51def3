"""Resynthesise a folder of audio: `python -m pipelines.batch_transform INPUT`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from audiovae.cli.morph import KeepLoudnessOption, LibraryOption
from audiovae.commands import (
    KbpsOption,
    MaxBytesOption,
    PolishOption,
    QualityOption,
    UsageProblem,
    amount_option,
    end_process,
    refuse_given,
    refuse_idle_quality,
    run_command,
)
from pipelines.options import AllowErrors, Device, Executor, Workers

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

_EXAMPLE = "\n\n".join(
    (
        "[bold]Example:[/bold]  python -m pipelines.batch_transform recordings/ --format flac",
        "writes [cyan]recordings_audiovae/[/cyan]: of each [cyan]drums/kick.wav[/cyan] the "
        "compressed [cyan]drums/kick.wav.avae[/cyan] and its decode "
        "[cyan]drums/kick.wav.resynth.flac[/cyan], with manifest.jsonl, summary.json and "
        "report.html. Compressed inputs are decoded. Run it again at any time: it does what is "
        "left, and nothing twice.",
        "[bold]Exit status:[/bold]  0 all done, 3 some inputs failed, 2 wrong usage, 1 fatal, "
        "130 interrupted.",
    )
)

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="A directory (with all below it), a file, a quoted pattern such as "
        "'takes/**/*.wav', or a URI as s3://bucket/takes. Never written to.",
        show_default=False,
    ),
]
OutputDir = Annotated[
    str | None,
    typer.Option(
        help="Where outputs go, a path or a URI. Default: INPUT's name + _audiovae, beside INPUT."
    ),
]
Do = Annotated[
    str | None,
    typer.Option(
        help="What to make of each file: compress, resynthesize. Default: both.", show_default=False
    ),
]
ToTimbre = Annotated[
    str | None,
    typer.Option(
        help="Play every file with this timbre: an audio file, a directory (its mean), or a name "
        "that audiovae timbre save gave. Outputs are called by it.",
        show_default=False,
    ),
]
Amount = Annotated[
    float | None,
    amount_option(
        "How far to go to it: 0 is each file's own timbre, 1 this one. Default: 1.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="Name of a model, its file, or the folder of a training run. Default: base, or "
        "timbre with --to-timbre.",
        show_default=False,
    ),
]
Format = Annotated[Literal["wav", "flac", "ogg"], typer.Option(help="Format of the outputs.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files that are not in the manifest.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


@app.command(epilog=_EXAMPLE)
def batch_transform(
    context: typer.Context,
    inputs: Inputs,
    output_dir: OutputDir = None,
    do: Do = None,
    quality: QualityOption = 6,
    kbps: KbpsOption = None,
    max_bytes: MaxBytesOption = None,
    polish: PolishOption = 16,
    to_timbre: ToTimbre = None,
    amount: Amount = None,
    keep_loudness: KeepLoudnessOption = False,
    library: LibraryOption = None,
    checkpoint: Checkpoint = None,
    executor: Executor = "auto",
    workers: Workers = None,
    device: Device = "auto",
    format: Format = "wav",
    overwrite: Overwrite = False,
    allow_errors: AllowErrors = False,
    dry_run: DryRun = False,
) -> None:
    """Decode audio of any kind, send it through the model, and write what comes out.

    Every input gets a row in manifest.jsonl: ok, error with its reason, or skipped.
    """
    from pipelines.runner.batch import BatchOptions, run_batch
    from pipelines.runner.executor import refuse_relative_paths
    from pipelines.runner.recipe import PRODUCTS, Recipe, parse_products, weights_identity
    from pipelines.runner.timbre_choice import choose_timbre

    if len(inputs) > 1:
        raise UsageProblem(
            f"expected one INPUT, got {len(inputs)}; name their directory, or quote the pattern"
        )
    if to_timbre is None:
        idle = ("amount", "keep_loudness", "library")
        refuse_given(context, idle, "with --to-timbre, got it alone; say which timbre")
    else:
        idle = ("do", "kbps", "max_bytes")
        refuse_given(context, idle, "without --to-timbre, which makes sound only; leave one out")
    refuse_idle_quality(context, kbps, max_bytes)
    checkpoint = checkpoint or ("base" if to_timbre is None else "timbre")
    weights_path = checkpoint if os.sep in checkpoint else None
    refuse_relative_paths(
        {"INPUT": inputs[0], "--output-dir": output_dir, "--checkpoint": weights_path}
    )
    weights = weights_identity(checkpoint)
    products = tuple(PRODUCTS) if do is None else parse_products(do)
    timbre = None
    if to_timbre is not None:
        products = ("resynthesize",)
        timbre = choose_timbre(
            to_timbre,
            1.0 if amount is None else amount,
            keep_loudness=keep_loudness,
            library=library,
            checkpoint=checkpoint,
            quality=quality,
        )
    recipe = Recipe(products, checkpoint, weights, quality, format, kbps, max_bytes, polish, timbre)
    flags = {"overwrite": overwrite, "allow_errors": allow_errors, "dry_run": dry_run}
    options = BatchOptions(inputs[0], recipe, output_dir, executor, workers, device, **flags)
    raise typer.Exit(run_batch(options))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.batch_transform")


if __name__ == "__main__":
    end_process(main())
