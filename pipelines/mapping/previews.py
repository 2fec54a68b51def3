"""What the map shows and plays of each clip: sheets of small pictures, and short previews."""

from __future__ import annotations

import base64
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from audiovae.audio import AudioWriter, mixed_to_mono, read_audio
from audiovae.errors import AudioVAEError
from pipelines.spectrogram_image import image_uri, shaded_image

if TYPE_CHECKING:
    from pipelines.mapping.collection import Collection

SHEET_COLUMNS: Final = 32
SHEET_ROWS: Final = 32
MAX_EMBEDDED_CLIPS: Final = 200
"""Up to so many clips the page holds the sound itself; beyond, it links to the files."""
PREVIEW_SECONDS: Final = 4.0
_PREVIEW_RATE: Final = 24_000
_BRIGHTEST: Final = 255.0

_logger = logging.getLogger(__name__)


def sprite_sheets(pictures: NDArray[np.uint8]) -> list[str]:
    """Pictures `[clip, band, column]` in rows of sheets, as `data:` URIs."""
    sheets = []
    per_sheet = SHEET_COLUMNS * SHEET_ROWS
    for start in range(0, len(pictures), per_sheet):
        cut = pictures[start : start + per_sheet]
        rows = -(-len(cut) // SHEET_COLUMNS)
        filled = np.zeros((rows * SHEET_COLUMNS, *cut.shape[1:]), np.uint8)
        filled[: len(cut)] = cut
        grid = filled.reshape(rows, SHEET_COLUMNS, *cut.shape[1:]).transpose(0, 2, 1, 3)
        sheet = grid.reshape(rows * cut.shape[1], SHEET_COLUMNS * cut.shape[2])
        # Pictures have high bands first already; the shader puts low ones at the bottom.
        image = shaded_image(np.flipud(sheet).astype(np.float32), 0.0, _BRIGHTEST, shrink=False)
        sheets.append(image_uri(image))
    return sheets


def embedded_previews(collection: Collection, clips: Sequence[int]) -> list[str]:
    """The beginnings of clips as Ogg Vorbis `data:` URIs; "" for one that cannot be read now."""
    with tempfile.TemporaryDirectory(prefix="audiovae_") as folder:
        scratch = Path(folder) / "preview.ogg"
        return [_preview(collection.root / collection.names[clip], scratch) for clip in clips]


def _preview(source: Path, scratch: Path) -> str:
    try:
        clip = read_audio(source, duration_seconds=PREVIEW_SECONDS, sample_rate=_PREVIEW_RATE)
        with AudioWriter(
            scratch, sample_rate=_PREVIEW_RATE, num_channels=1, bit_depth=16, format="ogg"
        ) as writer:
            writer.write(mixed_to_mono(clip.waveform))
    except AudioVAEError as error:
        _logger.warning("preview=failed path=%r reason=%s", str(source), error)
        return ""
    return "data:audio/ogg;base64," + base64.b64encode(scratch.read_bytes()).decode("ascii")
