"""Rows of a timbre evaluation as a Markdown report and a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pipelines.evaluation.timbre_bench import COPY_INPUT, TimbreRow
from pipelines.evaluation.timbre_paths import Property


@dataclass(frozen=True)
class WayMean:
    """One way over all trials.

    Attributes:
        way: Its name.
        mel_distance: Mean.
        of_copy_input: That, divided by copy-input's.
        pitch: Share of voiced frames within 50 cents; None if there is no tracker.
        contour: Mean correlation of the loudness contours.
        is_target: Share that the classifier takes for the target.
    """

    way: str
    mel_distance: float
    of_copy_input: float
    pitch: float | None
    contour: float
    is_target: float


def way_means(rows: Sequence[TimbreRow]) -> list[WayMean]:
    """Means over trials, way by way, in the order of their first row."""
    found = []
    copied = fmean(row.distances.mel_distance for row in rows if row.way == COPY_INPUT)
    for way in dict.fromkeys(row.way for row in rows):
        own = [row for row in rows if row.way == way]
        distance = fmean(row.distances.mel_distance for row in own)
        pitches = [row.distances.pitch for row in own if row.distances.pitch is not None]
        found.append(
            WayMean(
                way,
                distance,
                distance / copied,
                fmean(pitches) if pitches else None,
                fmean(row.distances.contour for row in own),
                fmean(row.is_target for row in own),
            )
        )
    return found


def report(rows: Sequence[TimbreRow], properties: Sequence[Property], facts: Sequence[str]) -> str:
    """The Markdown file."""
    parts = ["# Timbre evaluation", "\n".join(f"- {fact}" for fact in facts), table(rows)]
    if properties:
        lines = ["| property | mean |", "|---|---:|"]
        lines += [f"| {each.title} | {each.value:.3f} |" for each in properties]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, _LEGEND]) + "\n"


def table(rows: Sequence[TimbreRow]) -> str:
    """One line a way."""
    lines = [
        "| | mel distance | of copy-input's | pitch | contour | taken for the target |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for mean in way_means(rows):
        pitch = "" if mean.pitch is None else f"{100 * mean.pitch:.0f} %"
        lines.append(
            f"| {mean.way} | {mean.mel_distance:.2f} | {mean.of_copy_input:.2f} | {pitch} | "
            f"{mean.contour:.2f} | {100 * mean.is_target:.0f} % |"
        )
    return "\n".join(lines)


def csv_text(rows: Sequence[TimbreRow], names: Sequence[str]) -> str:
    """Every trial and way, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["way", "phrase", "source", "target", "mel_distance", "pitch", "contour", "is_target"]
    )
    for row in rows:
        trial, distances = row.trial, row.distances
        pitch = "" if distances.pitch is None else f"{distances.pitch:.6g}"
        writer.writerow(
            [
                row.way.strip("*"),
                trial.phrase,
                names[trial.source],
                names[trial.target],
                f"{distances.mel_distance:.6g}",
                pitch,
                f"{distances.contour:.6g}",
                int(row.is_target),
            ]
        )
    return text.getvalue()


_LEGEND = """\
Means over all ordered pairs of instruments and all phrases. *Mel distance* to the true rendition
(multi-scale, as in the DAC paper), after loudness and one lag are taken out. *Pitch*: frames of
sure pitch of the truth at which the pitch lies within 50 cents, octaves forgiven, in phrases of
one voice. *Contour*: correlation of the loudness over time. *Taken for the target*: by a
classifier that learnt from other phrases by the originals."""
