"""Rows of an evaluation as means, a Markdown report and a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from pipelines.evaluation.bench import (
    COPY_SYNTHESIS,
    GRIFFIN_LIM,
    MODEL,
    MODEL_GRIFFIN_LIM,
    OPUS,
    Row,
)

_ORDER: Final = (MODEL, MODEL_GRIFFIN_LIM, COPY_SYNTHESIS, GRIFFIN_LIM, OPUS)


@dataclass(frozen=True, slots=True)
class _Column:
    """A figure of a row: its name in the CSV, its title in a table, and its digits there."""

    key: str
    title: str
    digits: int
    value: Callable[[Row], float | None]


_COLUMNS: Final = (
    _Column("kbps", "kbps", 2, lambda row: row.kbps),
    _Column("mel_distance", "mel distance", 3, lambda row: row.distances.mel_distance),
    _Column("short", "short", 3, lambda row: row.distances.short),
    _Column("log_mel_db", "log-mel dB", 2, lambda row: row.distances.log_mel_db),
    _Column("decoded_log_mel_db", "decoded log-mel dB", 2, lambda row: row.decoded_log_mel_db),
    _Column("stft_distance", "STFT distance", 3, lambda row: row.distances.stft_distance),
    _Column("si_sdr_db", "SI-SDR dB", 1, lambda row: row.distances.si_sdr_db),
    _Column("loudness_error_lu", "loudness LU", 2, lambda row: row.distances.loudness_error_lu),
    _Column("visqol", "ViSQOL", 2, lambda row: row.distances.visqol),
    _Column("pesq_wb", "PESQ-WB (speech)", 2, lambda row: row.distances.pesq_wb),
)


@dataclass(frozen=True, slots=True)
class MeanRow:
    """Means over clips of one system at one setting; a figure that no clip has is None."""

    system: str
    setting: int | None
    clips: int
    figures: dict[str, float | None]

    @property
    def title(self) -> str:
        """What a reader calls it."""
        if self.setting is None:
            return self.system
        unit = f"{self.setting} kbps" if self.system == OPUS else f"quality {self.setting}"
        return f"{self.system}, {unit}"


def mean_rows(rows: Iterable[Row]) -> list[MeanRow]:
    """Means over clips, by system and setting, in the order of the tables."""

    def place(row: Row) -> tuple[int, int]:
        return _ORDER.index(row.system), row.setting or 0

    means = []
    for _, group in groupby(sorted(rows, key=place), key=place):
        members = list(group)
        figures = {column.key: _mean(map(column.value, members)) for column in _COLUMNS}
        first = members[0]
        means.append(MeanRow(first.system, first.setting, len(members), figures))
    return means


def table(means: Sequence[MeanRow]) -> str:
    """An aligned Markdown table; columns that are empty throughout are left out."""
    columns = [c for c in _COLUMNS if any(mean.figures[c.key] is not None for mean in means)]
    lines = [["", *(column.title for column in columns)]]
    for mean in means:
        cells = [_number(mean.figures[column.key], column.digits) for column in columns]
        lines.append([mean.title, *cells])
    return markdown_table(lines)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """An aligned table of a heading and rows of one length: names first, figures after."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| " + " | ".join(_align(line, widths)) + " |" for line in (lines[0], rule, *lines[1:])
    )


def report(rows: Sequence[Row], facts: Sequence[str]) -> str:
    """The Markdown file: facts of the run, the table of all clips, and one for each class."""
    kinds = sorted({row.clip.kind for row in rows})
    parts = ["# Evaluation", "\n".join(f"- {fact}" for fact in facts)]
    parts += [f"## All: {_clip_count(rows)}", table(mean_rows(rows)), _LEGEND]
    if len(kinds) > 1:
        for kind in kinds:
            own = [row for row in rows if row.clip.kind == kind]
            parts += [f"## {kind}: {_clip_count(own)}", table(mean_rows(own))]
    return "\n\n".join(parts) + "\n"


def csv_text(rows: Iterable[Row]) -> str:
    """Every clip and row, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = ["file", "class", "system", "setting", "seconds", "bytes"]
    writer.writerow([*facts, *(column.key for column in _COLUMNS)])
    for row in rows:
        values = [column.value(row) for column in _COLUMNS]
        writer.writerow(
            [
                row.clip.name,
                row.clip.kind,
                row.system,
                _cell(row.setting),
                f"{row.seconds:.6g}",
                _cell(row.num_bytes),
                *("" if value is None else f"{value:.6g}" for value in values),
            ]
        )
    return text.getvalue()


_LEGEND: Final = """\
Means over clips. *kbps*: all bytes of the file, all channels. *Mel distance*: multi-scale, as in
the DAC paper; *short*: its windows up to 256 samples alone, which see smeared onsets and wrong
phase. *Log-mel*: of the sound; *decoded log-mel*: of what the VAE decoded, before it became
sound. *Copy synthesis* and *Griffin-Lim* (32 steps) sound the true log-mel: what the sound would
be if the VAE lost nothing. Lower is better, except for SI-SDR, ViSQOL and PESQ."""


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _align(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, figures to the right."""
    figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return [cells[0].ljust(widths[0]), *figures]


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


def _clip_count(rows: Sequence[Row]) -> str:
    lengths = {row.clip.name: row.seconds for row in rows}
    clips = "1 clip" if len(lengths) == 1 else f"{len(lengths)} clips"
    return f"{clips}, {sum(lengths.values()):.0f} s"
