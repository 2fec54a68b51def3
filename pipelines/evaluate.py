"""Measure a model beside Opus and Griffin-Lim: `python -m pipelines.evaluate --data DIR`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from audiovae.commands import (
    CheckpointOption,
    ExitStatus,
    Interrupted,
    PolishOption,
    UsageProblem,
    complain,
    end_process,
    refuse_given,
    run_command,
)
from audiovae.errors import AudioVAEError, ConfigError
from pipelines.evaluation.family_request import FamilyRequest
from pipelines.options import Device
from pipelines.results import require_new, write_results
from pipelines.runner.stopping import FatalProblem, StopRequest

if TYPE_CHECKING:
    from audiovae.checkpoint import Model
    from pipelines.evaluation.bench import Bench, Row
    from pipelines.evaluation.clips import ClipFile

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

_OUTPUT_SUFFIX: Final = "_evaluation"
_OUTPUTS: Final = ("evaluation.csv", "evaluation.md", "rate_distortion.png")
_MAX_QUALITY: Final = 8
_OF_ONE_MODEL: Final = (
    "checkpoint",
    "vocoder",
    "qualities",
    "polish",
    "visqol",
    "device",
    "workers",
)
"""Options beside `--family`, whose members are measured as they are."""
_POLL_SECONDS: Final = 0.25

_EXAMPLE = """
[bold]Example:[/bold]  python -m pipelines.evaluate --data clips/ --qualities 2,4,6

writes [cyan]clips_evaluation/[/cyan] with evaluation.csv (every clip and row), evaluation.md
(means, also by class) and rate_distortion.png. A clip's class is what a manifest.csv beside it
says (columns file and class), else the name of its folder; PESQ is measured on the class speech.

[bold]The VAE family:[/bold]  python -m pipelines.evaluate --family runs/ --data clips/
--train-data recordings/ --soundfont instruments.sf2

writes family.csv and family.md: likelihoods, rates, samples and latent spaces of all runs.

[bold]Exit status:[/bold]  0 all done, 3 some files failed, 2 wrong usage, 1 fatal,
130 interrupted.
"""


@app.command(epilog=_EXAMPLE.strip().replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n"))
def evaluate(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Directory of audio, with all below it.")],
    checkpoint: CheckpointOption = "base",
    vocoder: Annotated[
        str,
        typer.Option(
            help="The same for the vocoder; own: that beside the model file, or else the shipped "
            "one; none: Griffin-Lim alone."
        ),
    ] = "own",
    qualities: Annotated[str, typer.Option(help="Such as 1-8, 6 or 2,4,6.")] = "1-8",
    polish: PolishOption = 16,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Where results go. Default: DATA's name + _evaluation, beside DATA."),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Only the beginning of each file, this long.")
    ] = 30.0,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Clips at a time. Default: one for each core.")
    ] = None,
    visqol: Annotated[
        bool, typer.Option("--visqol/--no-visqol", help="ViSQOL takes a second a row.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")
    ] = False,
    family: Annotated[
        list[str] | None,
        typer.Option(help="Compare VAEs instead: a run, or a folder of runs; repeatable."),
    ] = None,
    train_data: Annotated[
        Path | None, typer.Option(help="With --family: what they learnt from, to find copies.")
    ] = None,
    soundfont: Annotated[
        Path | None, typer.Option(help="With --family: plays notes, for disentanglement.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="With --family: drawn from a prior.")] = 48,
) -> None:
    """Measure a model at each quality: true bytes, and distances of what they decode to.

    Beside it on the same clips: the vocoder and Griffin-Lim on the true log-mel, and Opus.
    """
    from pipelines.evaluation.clips import find_clips

    results = output_dir or data.resolve().parent / (data.resolve().name + _OUTPUT_SUFFIX)
    if family:
        refuse_given(context, _OF_ONE_MODEL, "without --family, got both; leave one out")
        _compare(
            FamilyRequest(family, data, train_data, soundfont, max_seconds, samples),
            results,
            overwrite,
        )
    refuse_given(context, ("train_data", "soundfont", "samples"), "with --family, got it alone")
    steps = parse_qualities(qualities)
    clips = find_clips(data)
    require_new(results, _OUTPUTS, overwrite)
    with StopRequest() as stop:
        bench, facts = _prepare(
            checkpoint,
            vocoder,
            steps,
            max_seconds,
            polish=polish,
            visqol=visqol,
            device=device,
            stop=stop,
        )
        stop.immediate = False
        rows = _measure(bench, clips, _num_workers(workers, device), stop)
    measured = {row.clip.name for row in rows}
    if not measured:
        raise FatalProblem("expected at least one file that can be read, got none; see above")
    typer.echo(_write(results, rows, facts))
    failed = len(clips) - len(measured)
    typer.echo(f"done clips={len(measured)} failed={failed} results={results}")
    raise typer.Exit(ExitStatus.FAILED_INPUTS if failed else ExitStatus.DONE)


def _compare(request: FamilyRequest, results: Path, overwrite: bool) -> NoReturn:
    """Measure the members of the VAE family side by side."""
    from pipelines.evaluation.family import OUTPUTS, evaluate_family

    require_new(results, OUTPUTS, overwrite)
    with StopRequest() as stop:
        stop.immediate = False
        text, contents, failed = evaluate_family(request, lambda: stop.requested)
    write_results(results, contents)
    typer.echo(text)
    typer.echo(f"done failed={failed} results={results}")
    raise typer.Exit(ExitStatus.FAILED_INPUTS if failed else ExitStatus.DONE)


def parse_qualities(text: str) -> tuple[int, ...]:
    """Steps of the quality scale: `1-8`, `6` or `2,4,6`.

    >>> parse_qualities("1-3,6")
    (1, 2, 3, 6)

    Raises:
        UsageProblem: If the text says something else.
    """
    steps: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d)(?:\s*-\s*(\d))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= _MAX_QUALITY:
            raise UsageProblem(
                f"--qualities: expected steps from 1 to {_MAX_QUALITY} such as 1-8, 6 or 2,4,6, "
                f"got '{text}'"
            )
        steps.update(range(first, last + 1))
    return tuple(sorted(steps))


def _num_workers(asked: int | None, device: str) -> int:
    from pipelines.runner.local import default_workers, resolve_device

    return asked or default_workers(resolve_device(device))


def _prepare(
    checkpoint: str,
    vocoder: str,
    qualities: tuple[int, ...],
    max_seconds: float,
    *,
    polish: int,
    visqol: bool,
    device: str,
    stop: StopRequest,
) -> tuple[Bench, list[str]]:
    """The model on its device, what it is measured beside, and the facts a reader needs."""
    from audiovae.checkpoint import load_model
    from pipelines.evaluation.bench import Bench
    from pipelines.evaluation.facts import facts_of, missing_measures
    from pipelines.evaluation.opus import OpusEncoder
    from pipelines.runner.local import resolve_device

    model = load_model(
        checkpoint, resolve_device(device), vocoder=None if vocoder == "none" else vocoder
    )
    steps = _known_qualities(model, qualities)
    opus = OpusEncoder.find()
    notes = missing_measures(opus, visqol)
    for note in notes:
        typer.echo(note)
    bench = Bench(model, steps, opus, max_seconds, visqol, lambda: stop.requested, polish)
    return bench, [*facts_of(model, polish, max_seconds, opus), *notes]


def _known_qualities(model: Model, qualities: tuple[int, ...]) -> tuple[int, ...]:
    """The qualities asked for; one where the model has no scale.

    Raises:
        ConfigError: If the model makes no compressed files.
        UsageProblem: If its scale has none of that name.
    """
    if model.frequency_table is None:
        raise ConfigError(
            f"expected a model with the quantized or the vq bottleneck, got {model.name} with "
            f"'{model.config.bottleneck.kind}', which makes no files to count the bytes of"
        )
    known = {point.quality for point in model.quality_scale}
    unknown = sorted(set(qualities) - known)
    if known and unknown:
        raise UsageProblem(
            f"--qualities: expected some of {sorted(known)}, which {Path(model.name).stem} has, "
            f"got {unknown}"
        )
    return qualities if known else qualities[-1:]


def _measure(
    bench: Bench, clips: Sequence[ClipFile], num_workers: int, stop: StopRequest
) -> list[Row]:
    """Rows of all clips, in order; a bad file is named and left out."""
    from pipelines.training_display import CountingDisplay

    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="clip")
    futures = [pool.submit(bench.run, clip) for clip in clips]
    pending: set[Future[list[Row]]] = set(futures)
    try:
        with CountingDisplay("clips") as display:
            while pending:
                done, pending = wait(pending, _POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    _end_at_once_if_unforeseen(future)
                if done:
                    display.show(len(clips) - len(pending), len(clips))
                if stop.requested:
                    raise Interrupted("stopped; nothing was written")
    finally:
        pool.shutdown(cancel_futures=True)
    rows = []
    for clip, future in zip(clips, futures, strict=True):
        try:
            rows += future.result()
        except AudioVAEError as error:
            complain(error if clip.path.name in str(error) else f"{clip.name}: {error}")
    return rows


def _end_at_once_if_unforeseen(future: Future[list[Row]]) -> None:
    """Raise what is no fault of a file's: the other clips would meet it too."""
    error = future.exception()
    if error is not None and not isinstance(error, AudioVAEError):
        raise error


def _write(results: Path, rows: Sequence[Row], facts: Sequence[str]) -> str:
    """Write the three files, each complete or not at all, and return the main table."""
    from pipelines.evaluation.plot import rate_distortion_png
    from pipelines.evaluation.tables import csv_text, mean_rows, report, table

    means = mean_rows(rows)
    contents = {
        "evaluation.csv": csv_text(rows).encode(),
        "evaluation.md": report(rows, facts).encode(),
        "rate_distortion.png": rate_distortion_png(means, facts[0]),
    }
    write_results(results, contents)
    return table(means)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.evaluate")


if __name__ == "__main__":
    end_process(main())
