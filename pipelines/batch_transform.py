"""Resynthesise a folder of audio: `python -m pipelines.batch_transform INPUT`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from audiovae.commands import (
    CheckpointOption,
    KbpsOption,
    MaxBytesOption,
    QualityOption,
    UsageProblem,
    end_process,
    run_command,
)

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
        help="A directory (with all below it), a file, or a quoted pattern such as "
        "'takes/**/*.wav'. Never written to.",
        show_default=False,
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(help="Where outputs go. Default: INPUT's name + _audiovae, beside INPUT."),
]
Do = Annotated[str, typer.Option(help="What to make of each file: compress, resynthesize.")]
Executor = Annotated[
    Literal["auto", "local"], typer.Option(help="Where to work; local: this process.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Workers. Default: one for each available core.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto: the GPU if there is one.")
]
Format = Annotated[Literal["wav", "flac", "ogg"], typer.Option(help="Format of the outputs.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files that are not in the manifest.")
]
AllowErrors = Annotated[
    bool, typer.Option("--allow-errors", help="Exit with 0 even if some inputs failed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


@app.command(epilog=_EXAMPLE)
def batch_transform(
    inputs: Inputs,
    output_dir: OutputDir = None,
    do: Do = "compress,resynthesize",
    quality: QualityOption = 6,
    kbps: KbpsOption = None,
    max_bytes: MaxBytesOption = None,
    checkpoint: CheckpointOption = "base",
    executor: Executor = "auto",
    workers: Workers = None,
    device: Device = "auto",
    format: Format = "wav",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    allow_errors: AllowErrors = False,
    dry_run: DryRun = False,
) -> None:
    """Decode audio of any kind, send it through the model, and write what comes out.

    Every input gets a row in manifest.jsonl: ok, error with its reason, or skipped.
    """
    from pipelines.runner.batch import BatchOptions, run_batch
    from pipelines.runner.recipe import Recipe, parse_products, weights_identity

    if len(inputs) > 1:
        raise UsageProblem(
            f"expected one INPUT, got {len(inputs)}; name their directory, or quote the pattern"
        )
    weights = weights_identity(checkpoint)
    recipe = Recipe(parse_products(do), checkpoint, weights, quality, seed, format, kbps, max_bytes)
    flags = {"overwrite": overwrite, "allow_errors": allow_errors, "dry_run": dry_run}
    options = BatchOptions(inputs[0], recipe, output_dir, executor, workers, device, **flags)
    raise typer.Exit(run_batch(options))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.batch_transform")


if __name__ == "__main__":
    end_process(main())
