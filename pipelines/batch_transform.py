"""Resynthesise a folder of audio: `python -m pipelines.batch_transform INPUT`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.runner.exits import UsageProblem, end_process, run_command

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

_EXAMPLE = """
[bold]Example:[/bold]  python -m pipelines.batch_transform recordings/ --quality 6 --format flac

writes [cyan]recordings_audiovae/[/cyan] with one output per input
([cyan]drums/kick.wav[/cyan] becomes [cyan]drums/kick.wav.resynth.flac[/cyan]), manifest.jsonl,
summary.json and report.html. Run it again at any time: it does what is left, and nothing
twice.

[bold]Exit status:[/bold]  0 all done, 3 some inputs failed, 2 wrong usage, 1 fatal,
130 interrupted.
"""


@app.command(epilog=_EXAMPLE.strip().replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n"))
def batch_transform(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="A directory (with all below it), a file, or a quoted pattern such as "
            "'takes/**/*.wav'. Never written to.",
            show_default=False,
        ),
    ],
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Where outputs go. Default: INPUT's name + _audiovae, beside INPUT."),
    ] = None,
    do: Annotated[str, typer.Option(help="What to make of each file.")] = "resynthesize",
    quality: Annotated[
        int, typer.Option(min=1, max=8, help="1 (fewest bits) to 8 (closest to the source).")
    ] = 6,
    checkpoint: Annotated[str, typer.Option(help="Name of a model, or path of its file.")] = "base",
    executor: Annotated[
        Literal["auto", "local"], typer.Option(help="Where to work; local: this process.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers. Default: one for each available core.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: the GPU if there is one.")
    ] = "auto",
    format: Annotated[
        Literal["wav", "flac", "ogg"], typer.Option(help="Format of the outputs.")
    ] = "wav",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace existing files that are not in the manifest."),
    ] = False,
    allow_errors: Annotated[
        bool, typer.Option("--allow-errors", help="Exit with 0 even if some inputs failed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
) -> None:
    """Decode audio of any kind, send it through the model, and write what comes out.

    Every input gets a row in manifest.jsonl: ok, error with its reason, or skipped.
    """
    from pipelines.runner.batch import BatchOptions, run_batch
    from pipelines.runner.recipe import Recipe, parse_products, weights_identity

    if len(inputs) > 1:
        raise UsageProblem(
            f"expected one INPUT, got {len(inputs)} (a pattern must be quoted); "
            "name their common directory, or quote the pattern"
        )
    recipe = Recipe(
        products=parse_products(do),
        checkpoint=checkpoint,
        weights=weights_identity(checkpoint),
        quality=quality,
        seed=seed,
        file_format=format,
    )
    options = BatchOptions(
        input=inputs[0],
        recipe=recipe,
        output_dir=output_dir,
        executor=executor,
        num_workers=workers,
        device=device,
        overwrite=overwrite,
        allow_errors=allow_errors,
        dry_run=dry_run,
    )
    raise typer.Exit(run_batch(options))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.batch_transform")


if __name__ == "__main__":
    end_process(main())
