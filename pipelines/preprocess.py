"""Turn audio into log-mel shards: `python -m pipelines.preprocess DIR --output-dir SHARDS`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from audiovae.commands import ExitStatus, end_process, run_command

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="[bold]Example:[/bold]  python -m pipelines.preprocess recordings/ "
    "--output-dir shards/ && python -m pipelines.train --config configs/base.toml "
    "--data shards/ --output-dir runs/mine"
)
def preprocess(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory of audio, with all below it.")
    ],
    output_dir: Annotated[Path, typer.Option(help="Where the shards go.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with the spectrogram. Default: the usual one.")
    ] = None,
) -> None:
    """Make log-mel shards, from which corpora larger than memory are trained on.

    Run it again at any time: it goes on where it was stopped, adds what is new, and does nothing
    twice. Exit status 3 means that some files could not be read and were left out.
    """
    from audiovae.config import ModelConfig, load_config
    from audiovae.training.shards import write_shards
    from pipelines.runner.lock import OutputLock
    from pipelines.training_display import CountingDisplay

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = load_config(config) if config else ModelConfig()
    with OutputLock(output_dir, source), CountingDisplay("files") as display:
        report = write_shards(source, output_dir, settings.spectrogram, display.show)
    typer.echo(
        f"shards={output_dir} written={report.written} known={report.known} "
        f"failed={len(report.failed)}"
    )
    if report.failed:
        raise typer.Exit(ExitStatus.FAILED_INPUTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.preprocess")


if __name__ == "__main__":
    end_process(main())
