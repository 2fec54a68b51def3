"""`report.html`: one page that shows what a batch did, and plays it.

The page is self-contained except for the sound, which it links to; it needs no network. Rows
are read from the manifest one at a time, so a million of them cost no memory: beyond
`MAX_FILES` the page shows the worst and a sample.
"""

from __future__ import annotations

import heapq
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from audiovae.commands import one_line
from audiovae.errors import AudioVAEError
from pipelines.runner.ledger import Row
from pipelines.runner.progress import duration
from pipelines.runner.recipe import Recipe
from pipelines.runner.summary import RunFacts, Totals

REPORT_NAME: Final = "report.html"
MAX_FILES: Final = 200
MAX_ERRORS: Final = 500
_SAMPLE_SEED: Final = 0
if TYPE_CHECKING:
    from pipelines.spectrogram_image import ImagePair

_KILO: Final = 1000
_BITS: Final = 8

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that the page shows."""

    files: tuple[Row, ...]
    errors: tuple[Row, ...]
    worst: frozenset[str]

    @property
    def is_complete(self) -> bool:
        """Whether no file that is ok was left out."""
        return not self.worst


def select(
    rows: Iterable[Row], max_files: int = MAX_FILES, max_errors: int = MAX_ERRORS
) -> Selection:
    """Choose what to show: every file if they are few, else the worst half and a random half."""
    half = max_files // 2
    generator = random.Random(_SAMPLE_SEED)
    kept: list[tuple[int, Row]] = []  # a uniform sample of all files seen so far
    worst: list[tuple[float, int, Row]] = []
    errors: list[Row] = []
    seen = 0
    for row in rows:
        if row["status"] == "error" and len(errors) < max_errors:
            errors.append(row)
        if row["status"] != "ok":
            continue
        heapq.heappush(worst, (row.get("log_mel_l1_db") or 0.0, -seen, row))
        if len(worst) > half:
            heapq.heappop(worst)
        if len(kept) < max_files:
            kept.append((seen, row))
        elif (place := generator.randrange(seen + 1)) < max_files:
            kept[place] = (seen, row)
        seen += 1
    if seen <= max_files:
        return Selection(tuple(row for _, row in kept), tuple(errors), frozenset())
    chosen = {-order: row for _, order, row in worst}
    for order, row in kept:
        if len(chosen) == max_files:
            break
        chosen.setdefault(order, row)
    files = tuple(chosen[order] for order in sorted(chosen))
    return Selection(files, tuple(errors), frozenset(row["path"] for *_, row in worst))


def write_report(
    output_dir: Path,
    title: str,
    root: Path,
    recipe: Recipe,
    rows: Callable[[], Iterator[Row]],
    totals: Totals,
    facts: RunFacts,
) -> Path:
    """Write `report.html`, atomically.

    Args:
        output_dir: Where outputs and the page are.
        title: Headline of the page, the name of what was done.
        root: Directory of the inputs.
        recipe: What was done to them.
        rows: Gives the rows of the manifest in plan order, each time from the start.
        totals: Sums over those rows.
        facts: What the run knows of itself.
    """
    selection = select(rows())
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=one_line(title),
            recipe=recipe,
            totals=totals,
            facts=facts,
            stages=_stages(facts),
            selection=selection,
            cards=[_card(row, output_dir, root, selection) for row in selection.files],
            errors=selection.errors,
            scale=_scale() if selection.files else {},
        )
    )
    path = output_dir / REPORT_NAME
    temporary = output_dir / f".{REPORT_NAME}.tmp"
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipelines", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "size": readable_size, "printable": one_line}
    return environment


def readable_size(num_bytes: float) -> str:
    """Bytes for a reader.

    >>> readable_size(812), readable_size(1_234_567)
    ('812 B', '1.2 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < _KILO:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= _KILO
    return f"{num_bytes:.1f} TB"


def relative_url(path: Path, start: Path) -> str:
    """URL of `path` for a page in `start`; any byte may stand in a name."""
    return quote(os.fsencode(os.path.relpath(path, start)))


def _scale() -> dict[str, Any]:
    from pipelines.spectrogram_image import RANGE_DB, colour_scale, frequency_ticks

    return {"colours": colour_scale(), "range_db": RANGE_DB, "ticks": frequency_ticks()}


def _card(row: Row, output_dir: Path, root: Path, selection: Selection) -> dict[str, Any]:
    source = root / row["path"]
    made = {output["product"]: output for output in row["outputs"]}
    sound, coded = made.get("resynthesize"), made.get("compress")
    output = output_dir / sound["path"] if sound else None
    folder, _, name = row["path"].rpartition("/")
    return {
        "row": row,
        "folder": folder,
        "name": name,
        "images": _picture(source, output) if output else None,
        "source_url": relative_url(source, output_dir),
        "output_url": relative_url(output, output_dir) if output else None,
        "coded_url": relative_url(output_dir / coded["path"], output_dir) if coded else None,
        "source_kbps": row["size"] * _BITS / _KILO / row["seconds"] if row["seconds"] else None,
        "coded_bytes": coded["size"] if coded else None,
        "is_worst": row["path"] in selection.worst,
    }


def _picture(source: Path, output: Path) -> ImagePair | None:
    from pipelines.spectrogram_image import image_pair

    try:
        return image_pair(source, output)
    except (AudioVAEError, OSError, ValueError) as error:
        _logger.warning("picture=failed path=%r reason=%s", str(source), error)
        return None


def _stages(facts: RunFacts) -> list[dict[str, Any]]:
    """Share of each stage in the time of all workers, in the order in which a file passes them."""
    total = sum(facts.stage_seconds.values())
    return [
        {"name": name, "seconds": seconds, "percent": 100 * seconds / total}
        for name, seconds in facts.stage_seconds.items()
        if total
    ]
