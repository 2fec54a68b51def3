"""`anomalies.html`: what is unusual, where and when, to look at and to listen to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from audiovae.analysis.profile import CELL_FRAMES
from audiovae.config import SpectrogramConfig
from pipelines.report import relative_url, write_page
from pipelines.spectrogram_image import (
    RANGE_DB,
    colour_scale,
    frequency_ticks,
    save_png,
    shaded_image,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from audiovae.analysis.anomaly import Detector
    from pipelines.detection.judging import Judgement, Verdict
    from pipelines.measured import MeasuredFile, Profiles

PAGE_NAME: Final = "anomalies.html"
HEAT_FOLDER: Final = "heatmaps"
MAX_SHOWN: Final = 100
_WINDOW_SECONDS: Final = 30.0
_HEAT_RANGE: Final = (1.0, 8.0)  # normal deviations, dark to light
_BARS: Final = 40
_DECIBELS_PER_NEPER: Final = 20 / math.log(10)


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the page says of the whole."""

    title: str
    normal: str
    checkpoint: str


def write_anomaly_page(
    output_dir: Path,
    facts: PageFacts,
    judgement: Judgement,
    detector: Detector,
    files: Sequence[MeasuredFile],
    profiles: Profiles,
) -> Path:
    """Write the page and the heat maps of the most surprising files.

    Args:
        output_dir: Where they go.
        facts: Of the whole.
        judgement: What was found.
        detector: That found it.
        files: The test files, in the order of the verdicts.
        profiles: Of these.
    """
    ranked = sorted(judgement.verdicts, key=lambda verdict: (-verdict.score, verdict.index))
    cards = []
    for rank, verdict in enumerate(ranked[:MAX_SHOWN], start=1):
        profile = profiles[verdict.index]
        file = files[verdict.index]
        cards.append(_card(output_dir, rank, verdict, file, profile, detector, judgement))
    return write_page(
        output_dir / PAGE_NAME,
        "anomalies.html.j2",
        facts=facts,
        judgement=judgement,
        cards=cards,
        histogram=_histogram(judgement),
        curve=_curve_points(judgement),
        ticks=frequency_ticks(),
        colours=colour_scale(),
        heat_range=_HEAT_RANGE,
        num_files=len(files),
    )


def _card(
    output_dir: Path,
    rank: int,
    verdict: Verdict,
    file: MeasuredFile,
    profile: dict[str, NDArray[Any]],
    detector: Detector,
    judgement: Judgement,
) -> dict[str, Any]:
    cells_per_second = SpectrogramConfig().frames_per_second / CELL_FRAMES
    # A last cell that is not whole would glow: its frames reach beyond the sound.
    whole_cells = max(1, int(file.seconds * cells_per_second))
    start = max(0.0, min(verdict.worst_second - _WINDOW_SECONDS / 2, file.seconds))
    start = math.floor(start) if file.seconds > _WINDOW_SECONDS else 0
    stop = min(file.seconds, start + _WINDOW_SECONDS)
    last = min(whole_cells, max(1, round(stop * cells_per_second)))
    shown = slice(round(start * cells_per_second), last)
    level_db = profile["cells"][1, :, shown].astype(np.float32) * _DECIBELS_PER_NEPER
    top_db = float(level_db.max())
    heat = detector.heat_map(profile)[:, shown]
    by_second = detector.judge(profile).per_second(file.seconds)
    image = shaded_image(level_db, top_db - RANGE_DB, top_db)
    return {
        "verdict": verdict,
        "url": relative_url(file.source, output_dir),
        "spectrogram": _picture(output_dir, rank, "spectrogram", image),
        "heat": _picture(output_dir, rank, "heat", shaded_image(heat, *_HEAT_RANGE)),
        "start": start,
        "seconds": stop - start,
        "of_seconds": file.seconds,
        "bars": [
            {
                "percent": 100 * min(1.0, score / (2 * judgement.threshold.value)),
                "is_alarm": score > judgement.threshold.value,
                "second": start + offset,
                "score": score,
            }
            for offset, score in enumerate(by_second[start : math.ceil(stop)].tolist())
        ],
    }


def _picture(output_dir: Path, rank: int, kind: str, image: Any) -> str:
    """Write a PNG, and give its URL."""
    folder = output_dir / HEAT_FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{rank:03d}_{kind}.png"
    save_png(image, path)
    return relative_url(path, output_dir)


def _histogram(judgement: Judgement) -> dict[str, Any]:
    """Shares of normal and test files by score, as bars of percent."""
    scores = [verdict.score for verdict in judgement.verdicts]
    top = max(*scores, *judgement.normal_scores, judgement.threshold.value) * 1.02
    groups = []
    for name, values in (("normal", judgement.normal_scores), ("test", scores)):
        counts, _ = np.histogram(values, bins=_BARS, range=(0, top))
        groups.append({"name": name, "heights": (100 * counts / counts.max()).tolist()})
    return {
        "groups": groups,
        "width": 100 / _BARS,
        "threshold": 100 * judgement.threshold.value / top,
        "top": top,
    }


def _curve_points(judgement: Judgement) -> str | None:
    """The points of the curve in an SVG of 100 by 100."""
    curve = judgement.curve
    if curve is None:
        return None
    pairs = zip(curve.false_alarm_rates, curve.hit_rates, strict=True)
    return " ".join(f"{100 * x:.2f},{100 - 100 * y:.2f}" for x, y in pairs)
