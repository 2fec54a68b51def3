"""Find what does not sound normal: `python -m pipelines.detect_anomalies --normal A --test B`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from audiovae.commands import (
    CheckpointOption,
    ExitStatus,
    end_process,
    one_line,
    run_command,
)
from pipelines.measured import Profiles, Workforce, input_root, measure_directory, require_apart
from pipelines.options import AllowErrors, Device, Executor, Workers

if TYPE_CHECKING:
    from pipelines.detection.judging import Judgement
    from pipelines.measured import MeasuredFile

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
_OUTPUT_SUFFIX: Final = "_anomalies"

_EXAMPLE = "\n\n".join(
    (
        "[bold]Example:[/bold]  python -m pipelines.detect_anomalies --normal good/ --test today/",
        "writes [cyan]today_anomalies/[/cyan]: anomalies.html (heat maps, players), scores.csv (a "
        "line a file), seconds.jsonl (a score a second), anomalies.json (threshold; AUC and ROC "
        "with --labels). Run it again at any time: only new files are measured.",
        "[bold]Exit status:[/bold]  0 all done, 3 some inputs failed, 2 wrong usage, 1 fatal, "
        "130 interrupted. Alarms are results, not failures.",
    )
)


@app.command(epilog=_EXAMPLE)
def detect_anomalies(
    normal: Annotated[Path, typer.Option(help="Directory of normal sounds.", show_default=False)],
    test: Annotated[
        Path, typer.Option(help="Directory of sounds to judge, or one file.", show_default=False)
    ],
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Where results go. Default: TEST's name + _anomalies, beside TEST."),
    ] = None,
    false_alarm_rate: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Share of normal files that may raise alarm.")
    ] = 0.01,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns file and label (1: anomaly, 0: normal), for AUC."),
    ] = None,
    adapt: Annotated[
        float | None,
        typer.Option(min=0.05, help="First learn from the normal sounds, for so many minutes."),
    ] = None,
    checkpoint: CheckpointOption = "base",
    executor: Executor = "auto",
    workers: Workers = None,
    device: Device = "auto",
    allow_errors: AllowErrors = False,
) -> None:
    """Score sounds by how unlike normal ones they are: each file, each second, each cell.

    The normal sounds calibrate the scores; nothing is trained, unless --adapt says so.
    """
    from pipelines.detection.judging import RESULT_NAME, SCORES_NAME, SECONDS_NAME
    from pipelines.detection.labels import read_anomaly_labels
    from pipelines.detection.page import PAGE_NAME
    from pipelines.runner.lock import require_ours
    from pipelines.runner.storage import LocalStorage

    root = input_root(test)
    input_root(normal)
    said = read_anomaly_labels(labels) if labels is not None else {}
    beside = Path(os.path.abspath(test))
    results = Path(os.path.abspath(output_dir or beside.parent / (beside.name + _OUTPUT_SUFFIX)))
    require_apart(results, root, input_root(normal))
    require_ours(LocalStorage(results), (PAGE_NAME, SCORES_NAME, SECONDS_NAME, RESULT_NAME))
    model = Path(checkpoint).stem
    if adapt is not None:
        from pipelines.detection.adapting import adapt as adapt_model

        checkpoint = adapt_model(checkpoint, normal, results, adapt, device)
        model += f", adapted for {adapt:g} minutes"
    workforce = Workforce(checkpoint, executor, workers, device)
    statuses, files = [], []
    for given, name in ((normal, "normal"), (test, "test")):
        sys.stdout.write(f"measuring {name}: {one_line(given)}\n")
        status, measured = measure_directory(given, results / name, "profile", workforce)
        statuses.append(status)
        files.append(measured)
    judgement, page = _judge(results, test, normal, files, false_alarm_rate, said, model)
    _say(judgement, results, page)
    failed = ExitStatus.FAILED_INPUTS in statuses and not allow_errors
    raise typer.Exit(ExitStatus.FAILED_INPUTS if failed else ExitStatus.DONE)


def _judge(
    results: Path,
    test: Path,
    normal: Path,
    files: Sequence[Sequence[MeasuredFile]],
    false_alarm_rate: float,
    said: Mapping[str, bool],
    model: str,
) -> tuple[Judgement, Path]:
    """Learn what is normal, judge the rest, and write what came of it."""
    from audiovae.analysis.anomaly import Detector
    from pipelines.detection.judging import judge_files
    from pipelines.detection.labels import labels_of
    from pipelines.detection.page import PageFacts, write_anomaly_page
    from pipelines.runner.lock import OutputLock
    from pipelines.training_display import CountingDisplay

    normal_files, test_files = files
    known = labels_of([file.name for file in test_files], said)
    profiles = Profiles(test_files)
    with OutputLock(results, input_root(test)), CountingDisplay("judged") as display:
        detector = Detector(Profiles(normal_files))
        judgement = judge_files(
            detector, test_files, profiles, false_alarm_rate, known, results, display.show
        )
        facts = PageFacts(test.name, normal.name, model)
        page = write_anomaly_page(results, facts, judgement, detector, test_files, profiles)
    return judgement, page


def _say(judgement: Judgement, results: Path, page: Path) -> None:
    threshold = judgement.threshold
    lines = [
        f"alarms: {judgement.alarms} of {len(judgement.verdicts)} files above "
        f"{threshold.value:.3f} (false alarm rate {judgement.false_alarm_rate:g})"
    ]
    if threshold.is_extrapolated:
        count = len(judgement.normal_scores)
        lines.append(
            f"note: {count} normal sounds show rates down to {1 / (count + 1):.3g}; this threshold "
            "is extrapolated from their largest scores, and faults may stay below it: give more "
            f"normal sounds, or --false-alarm-rate {max(0.05, 1 / (count + 1)):.2g}"
        )
    if judgement.curve is not None:
        lines.append(f"auc: {judgement.curve.area:.3f}")
    lines += [f"outputs: {one_line(results)}", f"page: {one_line(page)}"]
    sys.stdout.write("\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.detect_anomalies")


if __name__ == "__main__":
    end_process(main())
