"""Test files against normal ones: a verdict each, and the files that hold them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from audiovae.analysis.anomaly import Detector, Threshold
    from audiovae.analysis.detection_curve import DetectionCurve
    from pipelines.measured import MeasuredFile, Profiles
from audiovae.replacing import replacing

SCORES_NAME: Final = "scores.csv"
SECONDS_NAME: Final = "seconds.jsonl"
RESULT_NAME: Final = "anomalies.json"
_DECIMALS: Final = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one test file.

    `score` is a surprise (-log10 of a share of normal blocks); `share` is that of normal files at
    least as surprising; `worst_second` is where its loudest surprise is, `view` what saw it.
    """

    index: int
    name: str
    score: float
    share: float
    is_alarm: bool
    worst_second: int
    view: str
    squared_error: float
    label: bool | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts, and what they rest on."""

    verdicts: list[Verdict]
    threshold: Threshold
    false_alarm_rate: float
    normal_scores: tuple[float, ...]
    curve: DetectionCurve | None
    squared_error_area: float | None

    @property
    def alarms(self) -> int:
        """How many files are above the threshold."""
        return sum(verdict.is_alarm for verdict in self.verdicts)


def judge_files(
    detector: Detector,
    files: Sequence[MeasuredFile],
    profiles: Profiles,
    false_alarm_rate: float,
    labels: dict[str, bool],
    output_dir: Path,
    progress: Callable[[int, int], None],
) -> Judgement:
    """Judge every test file, in order, and write the three result files.

    Args:
        detector: That knows the normal files.
        files: To be judged.
        profiles: Of these.
        false_alarm_rate: Share of normal files that may raise an alarm.
        labels: Which files are anomalies, as far as is known.
        output_dir: Where results go.
        progress: Told of how many of how many are done.
    """
    threshold = detector.threshold(false_alarm_rate)
    verdicts: list[Verdict] = []
    with (
        _text_replacing(output_dir / SCORES_NAME) as scores,
        _text_replacing(output_dir / SECONDS_NAME) as seconds,
    ):
        table = csv.writer(scores, lineterminator="\n")
        table.writerow(("file", "score", "share_of_normal", "alarm", "worst_second", "view"))
        for index, file in enumerate(files):
            profile = profiles[index]
            surprise = detector.judge(profile)
            by_second = surprise.per_second(file.seconds)
            verdict = Verdict(
                index,
                file.name,
                surprise.total,
                detector.share_above(surprise.total),
                surprise.total > threshold.value,
                int(by_second.argmax()),
                surprise.leading_view,
                float(profile["squares"].mean()),
                labels.get(file.name),
            )
            verdicts.append(verdict)
            table.writerow(_columns(verdict))
            seconds.write(_line(file.name, by_second.tolist()))
            progress(index + 1, len(files))
    judgement = _judgement(verdicts, detector, threshold, false_alarm_rate)
    with _text_replacing(output_dir / RESULT_NAME) as result:
        json.dump(_facts(judgement), result, indent=2)
        result.write("\n")
    return judgement


def _judgement(
    verdicts: list[Verdict], detector: Detector, threshold: Threshold, false_alarm_rate: float
) -> Judgement:
    from audiovae.analysis.detection_curve import detection_curve

    curve = error_area = None
    known = [verdict for verdict in verdicts if verdict.label is not None]
    truth = [bool(verdict.label) for verdict in known]
    if len(set(truth)) > 1:
        curve = detection_curve([verdict.score for verdict in known], truth)
        error_area = detection_curve([v.squared_error for v in known], truth).area
    normal = tuple(float(total) for total in detector.normal_totals)
    return Judgement(verdicts, threshold, false_alarm_rate, normal, curve, error_area)


def _columns(verdict: Verdict) -> tuple[object, ...]:
    return (
        verdict.name,
        round(verdict.score, _DECIMALS),
        round(verdict.share, _DECIMALS),
        int(verdict.is_alarm),
        verdict.worst_second,
        verdict.view,
    )


def _line(name: str, by_second: list[float]) -> str:
    scores = [round(score, _DECIMALS) for score in by_second]
    return json.dumps({"file": name, "scores": scores}) + "\n"


def _facts(judgement: Judgement) -> dict[str, object]:
    curve = judgement.curve
    return {
        "files": len(judgement.verdicts),
        "alarms": judgement.alarms,
        "normal_files": len(judgement.normal_scores),
        "false_alarm_rate": judgement.false_alarm_rate,
        "threshold": round(judgement.threshold.value, _DECIMALS),
        "threshold_is_extrapolated": judgement.threshold.is_extrapolated,
        "auc": None if curve is None else round(curve.area, _DECIMALS),
        "auc_of_squared_error": judgement.squared_error_area,
        "roc": None
        if curve is None
        else {
            "false_alarm_rates": [round(rate, _DECIMALS) for rate in curve.false_alarm_rates],
            "hit_rates": [round(rate, _DECIMALS) for rate in curve.hit_rates],
        },
    }


@contextmanager
def _text_replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place when it is whole."""
    with (
        replacing(path) as draft,
        draft.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file
