"""Turn audio into log-mel shards: `python -m pipelines.preprocess DIR --output-dir SHARDS`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from audiovae.commands import ExitStatus, end_process, one_line, run_command
from pipelines.options import Executor, Workers

if TYPE_CHECKING:
    from pipelines.preprocessing.run import PreprocessReport

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
_NAMED_AT_MOST: Final = 20


@app.command(
    epilog="[bold]Example:[/bold]  python -m pipelines.preprocess recordings/ "
    "--output-dir shards/ && python -m pipelines.train --config configs/base.toml "
    "--data shards/ --output-dir runs/mine"
)
def preprocess(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="Directory of audio with all below it, a quoted pattern, or a URI as s3://...",
        ),
    ],
    output_dir: Annotated[str, typer.Option(help="Where the shards go; a path or a URI.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with the spectrogram. Default: the usual one.")
    ] = None,
    with_audio: Annotated[
        bool,
        typer.Option("--with-audio", help="Keep the waveforms too, to train a vocoder from."),
    ] = False,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Leave out files with the bytes of another.")
    ] = False,
    executor: Executor = "auto",
    workers: Workers = None,
) -> None:
    """Make log-mel shards, from which corpora larger than memory are trained on.

    Run it again at any time: it goes on where it was stopped, adds what is new or changed, and
    does nothing twice. Every input has a row in index.jsonl or in left_out.jsonl. Exit status 3
    means that some files could not be read and were left out.
    """
    from audiovae.config import ModelConfig, load_config
    from pipelines.preprocessing.run import PreprocessOptions, run_preprocess
    from pipelines.runner.executor import refuse_relative_paths

    refuse_relative_paths({"DIR": source, "--output-dir": output_dir, "--config": config})
    spectrogram = (load_config(config) if config else ModelConfig()).spectrogram
    flags = {"with_audio": with_audio, "deduplicate": deduplicate}
    options = PreprocessOptions(
        source, output_dir, spectrogram, executor=executor, num_workers=workers, **flags
    )
    raise typer.Exit(_tell(run_preprocess(options), output_dir))


def _tell(report: PreprocessReport, output_dir: str) -> ExitStatus:
    """Say what is there now, and name what could not be read."""
    sys.stdout.write(
        f"shards={one_line(output_dir)} written={report.written} known={report.known} "
        f"duplicates={report.duplicates} skipped={report.skipped} failed={len(report.failed)}\n"
    )
    for path, reason in islice(report.failed, _NAMED_AT_MOST):
        sys.stderr.write(f"failed: {one_line(path)}: {one_line(reason)}\n")
    if len(report.failed) > _NAMED_AT_MOST:
        more = len(report.failed) - _NAMED_AT_MOST
        sys.stderr.write(f"failed: and {more} more; see left_out.jsonl\n")
    return ExitStatus.FAILED_INPUTS if report.failed else ExitStatus.DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.preprocess")


if __name__ == "__main__":
    end_process(main())
