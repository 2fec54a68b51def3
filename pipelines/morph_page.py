"""`morph.html`, or one of another kind, and `contact_sheet.png`: sounds to see and to hear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from audiovae.replacing import replacing
from pipelines.report import page_environment, relative_url
from pipelines.spectrogram_image import RANGE_DB, image_row, write_contact_sheet

_SHEET_NAME: Final = "contact_sheet.png"
_COLUMNS: Final = 3


@dataclass(frozen=True, slots=True)
class MorphFacts:
    """What the page says of a morph as a whole."""

    title: str
    checkpoint: str
    content: str
    curve: str
    kind: str = "morph"


def page_names(kind: str = "morph") -> tuple[str, str]:
    """Names of what `write_morph_page` writes."""
    return f"{kind}.html", _SHEET_NAME


def write_morph_page(output_dir: Path, sounds: Mapping[str, Path], facts: MorphFacts) -> Path:
    """Write both, atomically.

    Args:
        output_dir: Where they go.
        sounds: In order, by label; they may lie elsewhere.
        facts: Of the whole.

    Raises:
        AudioReadError: If a sound cannot be read.
    """
    images = image_row(list(sounds.values()))
    write_contact_sheet(output_dir / _SHEET_NAME, images, list(sounds), min(_COLUMNS, len(images)))
    longest = max(image.seconds for image in images)
    cards = [
        {
            "image": image.uri,
            "label": label,
            "url": relative_url(sound, output_dir),
            "percent": 100 * image.seconds / longest,
        }
        for image, (label, sound) in zip(images, sounds.items(), strict=True)
    ]
    page = (
        page_environment()
        .get_template("morph.html.j2")
        .render(facts=facts, seconds=longest, cards=cards, range_db=RANGE_DB)
    )
    path = output_dir / page_names(facts.kind)[0]
    with replacing(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path
