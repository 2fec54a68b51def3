"""Sounds to train on from instruments: `python -m pipelines.render_phrases OUTPUT_DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from audiovae.commands import end_process, one_line, run_command

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="[bold]Example:[/bold]  python -m pipelines.render_phrases data/synthesizer "
    "--minutes 20 && python -m pipelines.train --init base --data data --output-dir runs/mine "
    "--minutes 60"
)
def render_phrases(
    output_dir: Annotated[Path, typer.Argument(help="Where the FLAC files go.")],
    soundfont: Annotated[
        Path | None,
        typer.Option(help="A .sf2 or .sf3 file that plays. Default: the built-in synthesizer."),
    ] = None,
    notes: Annotated[
        bool, typer.Option("--notes", help="Single notes, cut where they begin: one-shots.")
    ] = False,
    minutes: Annotated[float, typer.Option(min=0.1, help="Of sound, in all.")] = 20.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same files.")] = 0,
) -> None:
    """Play made-up phrases on many instruments: melodies, chords, arpeggios and long notes.

    With a soundfont half of the instruments are its programs as they are, and half are made from
    them. Files that are there already stay as they are.
    """
    from audiovae.training.rendering import render

    written = render(output_dir, soundfont, minutes, seed, notes=notes)
    sys.stdout.write(f"directory={one_line(output_dir)} written={written}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.render_phrases")


if __name__ == "__main__":
    end_process(main())
