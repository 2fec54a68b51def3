"""Measure timbre transfer: `python -m pipelines.evaluate_timbre --soundfont F --output-dir D`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from audiovae.commands import Interrupted, UsageProblem, end_process, run_command
from pipelines.options import Device
from pipelines.results import require_new, write_results

if TYPE_CHECKING:
    from pipelines.evaluation.timbre_bench import TimbreBench, TimbreRow
    from pipelines.evaluation.timbre_paths import Property
    from pipelines.runner.stopping import StopRequest

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

_OUTPUTS: Final = ("timbre_evaluation.csv", "timbre_evaluation.md")
_PROGRAMS: Final = "0,11,19,24,40,56,71,73"
_MIN_PROGRAMS: Final = 2


@app.command(
    epilog="[bold]Example:[/bold]  python -m pipelines.evaluate_timbre "
    "--soundfont /usr/share/sounds/sf2/TimGM6mb.sf2 --output-dir timbre_tim"
)
def evaluate_timbre(
    soundfont: Annotated[Path, typer.Option(help="A .sf2 or .sf3 file to play phrases with.")],
    output_dir: Annotated[Path, typer.Option(help="Where the table and its rows go.")],
    checkpoint: Annotated[str, typer.Option(help="A model with a timbre code.")] = "timbre",
    plain: Annotated[
        str, typer.Option(help="A model without one, to compare with; none: no such row.")
    ] = "base",
    vocoder: Annotated[
        str, typer.Option(help="What sounds them: name or path; own: as evaluate has it.")
    ] = "own",
    programs: Annotated[
        str, typer.Option(help="General MIDI programs, from 0; all ordered pairs are measured.")
    ] = _PROGRAMS,
    phrases: Annotated[int, typer.Option(min=2, help="Every second one has a single voice.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the phrases.")] = 0,
    paths: Annotated[
        bool, typer.Option("--paths/--no-paths", help="Measure ways, returns, sums and gains.")
    ] = True,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")
    ] = False,
) -> None:
    """Play phrases on some instruments, transfer each to every other, and compare with the truth.

    Beside the transfer: the input itself, another phrase by the target, the truth reconstructed,
    Griffin-Lim of its log-mel, WORLD's envelope swap, and the mean difference of a plain VAE.
    """
    from pipelines.evaluation.timbre_paths import means
    from pipelines.evaluation.timbre_tables import csv_text, report, table
    from pipelines.runner.stopping import StopRequest

    numbers = parse_programs(programs)
    require_new(output_dir, _OUTPUTS, overwrite)
    with StopRequest() as stop:
        names = (checkpoint, plain, vocoder)
        bench = _bench(soundfont, names, numbers, phrases, seed, device)
        stop.immediate = False
        rows = _measure(bench, stop)
        found = means(_properties(bench, stop)) if paths else []
    texts = csv_text(rows, bench.orchestra.names), report(rows, found, _facts(bench, phrases, seed))
    contents = {name: text.encode() for name, text in zip(_OUTPUTS, texts, strict=True)}
    write_results(output_dir, contents)
    typer.echo(table(rows))
    typer.echo(f"done trials={len(list(bench.trials()))} results={output_dir}")


def parse_programs(text: str) -> tuple[int, ...]:
    """Numbers of programs.

    >>> parse_programs("0, 40,73")
    (0, 40, 73)

    Raises:
        UsageProblem: If the text says something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < _MIN_PROGRAMS:
        raise UsageProblem(
            f"--programs: expected at least two different numbers such as {_PROGRAMS}, got '{text}'"
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def _bench(
    soundfont: Path,
    models: tuple[str, str, str],
    programs: tuple[int, ...],
    phrases: int,
    seed: int,
    device: str,
) -> TimbreBench:
    """Models and what is played."""
    from audiovae.checkpoint import load_model
    from pipelines.evaluation.orchestra import play
    from pipelines.evaluation.timbre_bench import TimbreBench
    from pipelines.runner.local import resolve_device
    from pipelines.training_display import CountingDisplay

    place = resolve_device(device)
    checkpoint, plain, vocoder = models
    model = load_model(checkpoint, place, vocoder)
    if model.config.timbre is None:
        raise UsageProblem(
            f"--checkpoint: expected a model with a timbre code, got '{checkpoint}'; train one "
            "with configs/timbre.toml"
        )
    other = None if plain == "none" else load_model(plain, place, vocoder)
    rate = model.config.spectrogram.sample_rate
    with CountingDisplay("played_phrases") as display:
        orchestra = play(soundfont, programs, phrases, seed, rate, display.show)
    return TimbreBench(model, other, orchestra)


def _measure(bench: TimbreBench, stop: StopRequest) -> list[TimbreRow]:
    from pipelines.training_display import CountingDisplay

    rows: list[TimbreRow] = []
    trials = list(bench.trials())
    with CountingDisplay("trials") as display:
        for done, trial in enumerate(trials, start=1):
            rows += bench.run(trial)
            display.show(done, len(trials))
            _end_if_asked(stop)
    return rows


def _properties(bench: TimbreBench, stop: StopRequest) -> list[Property]:
    from pipelines.evaluation.timbre_paths import neighbours, sum_properties, way_properties
    from pipelines.training_display import CountingDisplay

    found: list[Property] = []
    trials = list(neighbours(bench))
    models = {"timbre": bench.model} | ({"plain": bench.plain} if bench.plain else {})
    with CountingDisplay("ways") as display:
        for done, trial in enumerate(trials, start=1):
            found += way_properties(bench, trial)
            for name, model in models.items():
                found += sum_properties(bench, model, trial, name)
            display.show(done, len(trials))
            _end_if_asked(stop)
    return found


def _end_if_asked(stop: StopRequest) -> None:
    if stop.requested:
        raise Interrupted("stopped; nothing was written")


def _facts(bench: TimbreBench, phrases: int, seed: int) -> list[str]:
    import audiovae

    model, orchestra = bench.model, bench.orchestra
    return [
        f"model {Path(model.name).stem} (id {model.id}, {model.provenance.steps} steps), "
        f"audiovae {audiovae.__version__}",
        f"soundfont {orchestra.soundfont}: {', '.join(orchestra.names)}",
        f"{phrases} phrases of 6 s, every second one of a single voice, seed {seed}; timbre is "
        "taken from the next phrase",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.evaluate_timbre")


if __name__ == "__main__":
    end_process(main())
