"""Sounds to see and to hear: `contact_sheet.png`, and a page such as `morph.html`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.report import relative_url, write_page
from pipelines.spectrogram_image import RANGE_DB, image_row, write_contact_sheet

_SHEET_NAME: Final = "contact_sheet.png"
_COLUMNS: Final = 3


@dataclass(frozen=True, slots=True)
class SoundsFacts:
    """What the page says of the sounds as a whole.

    Attributes:
        title: What they are.
        checkpoint: The model that made them.
        notes: What else they were made with.
        kind: How they were made; the page is named by it.
    """

    title: str
    checkpoint: str
    notes: tuple[str, ...]
    kind: str


def page_names(kind: str) -> tuple[str, str]:
    """Names of what `write_sounds_page` writes."""
    return f"{kind}.html", _SHEET_NAME


def write_sounds_page(output_dir: Path, sounds: Mapping[str, Path], facts: SoundsFacts) -> Path:
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
    return write_page(
        output_dir / page_names(facts.kind)[0],
        "sounds.html.j2",
        facts=facts,
        seconds=longest,
        cards=cards,
        range_db=RANGE_DB,
    )
