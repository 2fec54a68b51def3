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
from audiovae.replacing import replacing
from pipelines.runner.desk import REPORT_NAME
from pipelines.runner.progress import duration
from pipelines.runner.recipe import Recipe
from pipelines.runner.rows import Row
from pipelines.runner.storage import Storage
from pipelines.runner.summary import RunFacts, Totals

MAX_FILES: Final = 200
MAX_ERRORS: Final = 500
_SAMPLE_SEED: Final = 0
if TYPE_CHECKING:
    from pipelines.spectrogram_image import ImagePair

_KILO: Final = 1000
_MAX_FETCHED_BYTES: Final = 64 << 20
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
    folder: Path,
    title: str,
    places: tuple[Storage, Storage],
    recipe: Recipe,
    rows: Callable[[], Iterator[Row]],
    totals: Totals,
    facts: RunFacts,
) -> Path:
    """Write `report.html`, atomically.

    Args:
        folder: Where the page is written.
        title: Headline of the page, the name of what was done.
        places: Of inputs and outputs.
        recipe: What was done to them.
        rows: Gives the rows of the manifest in plan order, each time from the start.
        totals: Sums over those rows.
        facts: What the run knows of itself.
    """
    selection = select(rows())
    return write_page(
        folder / REPORT_NAME,
        "report.html.j2",
        title=one_line(title),
        recipe=recipe,
        made="Resynthesis" if recipe.timbre is None else recipe.timbre.name,
        totals=totals,
        facts=facts,
        stages=_stages(facts),
        selection=selection,
        cards=[_card(row, *places, selection) for row in selection.files],
        errors=selection.errors,
        scale=_scale() if selection.files else {},
    )


def write_page(path: Path, template: str, **context: object) -> Path:
    """Render a template with what it names, and write the page, whole or not at all.

    Args:
        path: Where it goes.
        template: Name of a file of `templates/`.
        context: What the template shows, by the names that it has for them.

    Returns:
        `path`.
    """
    page = _page_environment().get_template(template).render(context)
    with replacing(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path


def _page_environment() -> Environment:
    """What renders a page: its templates, and the filters they use."""
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


def _card(row: Row, source: Storage, output: Storage, selection: Selection) -> dict[str, Any]:
    made = {output["product"]: output for output in row["outputs"]}
    sound, coded = made.get("resynthesize"), made.get("compress")
    folder, _, name = row["path"].rpartition("/")
    return {
        "row": row,
        "folder": folder,
        "name": name,
        "images": _pictures(row, sound, source, output) if sound else None,
        "source_url": _url(source, row["path"], output),
        "output_url": _url(output, sound["path"], output) if sound else None,
        "coded_url": _url(output, coded["path"], output) if coded else None,
        "source_kbps": row["size"] * _BITS / _KILO / row["seconds"] if row["seconds"] else None,
        "coded_bytes": coded["size"] if coded else None,
        "is_worst": row["path"] in selection.worst,
    }


def _url(place: Storage, path: str, output: Storage) -> str:
    """URL of a file for the page beside the outputs."""
    if place.directory is not None and output.directory is not None:
        return relative_url(place.directory / path, output.directory)
    name = f"{place.name}/{path}"
    return quote(os.fsencode(name.removeprefix(f"{output.name}/")), safe="/:")


def _pictures(row: Row, sound: Row, source: Storage, output: Storage) -> ImagePair | None:
    """Both spectrograms; of large files that would have to be fetched for it, none."""
    is_remote = source.directory is None or output.directory is None
    if is_remote and max(row["size"], sound["size"]) > _MAX_FETCHED_BYTES:
        return None
    try:
        with source.local_copy(row["path"]) as before, output.local_copy(sound["path"]) as after:
            return _picture(before, after)
    except AudioVAEError as error:
        _logger.warning("picture=failed path=%r reason=%s", row["path"], error)
        return None


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
