"""Log-mel spectrograms as small PNG images: colours and axes; the numbers come from audiovae."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from audiovae.audio import read_audio
from audiovae.config import SpectrogramConfig
from audiovae.replacing import replacing
from audiovae.spectrogram import log_mel_spectrogram, log_mel_to_db, mel_filterbank

SHOWN_SECONDS: Final = 20.0
RANGE_DB: Final = 80.0
_WIDTH_PIXELS: Final = 520
_COLOURS: Final = 64  # fewer than 256, so that 400 images make a page one can mail
_TILE_PIXELS: Final = (300, 128)  # of a contact sheet
_LABEL_PIXELS, _GAP_PIXELS = 26, 10
_TICKS_HZ: Final = (200, 1000, 4000, 16_000)
# Anchors of the magma colour map (matplotlib, CC0), dark to light.
_MAGMA: Final = (
    "000004 0a0722 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c "
    "fc8961 fea772 fec488 fde2a3 fcfdbf"
)


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Two spectrograms on one colour scale, as `data:` URIs, and the seconds they show."""

    source: str
    output: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RowImage:
    """One of several spectrograms on one colour scale, and the seconds it shows."""

    image: Image.Image
    seconds: float

    @property
    def uri(self) -> str:
        """The picture as a `data:` URI."""
        return image_uri(self.image)


@dataclass(frozen=True, slots=True)
class FrequencyTick:
    """A label of the frequency axis: its text, and how high it stands (0 bottom, 100 top)."""

    label: str
    percent: float


def image_pair(source: Path, output: Path) -> ImagePair:
    """Render the first `SHOWN_SECONDS` of two files; the loudest cell of `source` is the top.

    Raises:
        AudioReadError: If one of them cannot be read.
    """
    before, seconds = _log_mel_db(source)
    after, _ = _log_mel_db(output)
    top_db = float(before.max())
    return ImagePair(image_uri(_image(before, top_db)), image_uri(_image(after, top_db)), seconds)


def image_row(paths: Sequence[Path]) -> list[RowImage]:
    """Render the first `SHOWN_SECONDS` of some files; the loudest cell of all is the top.

    Raises:
        AudioReadError: If one of them cannot be read.
    """
    shown = [_log_mel_db(path) for path in paths]
    top_db = max(float(db.max()) for db, _ in shown)
    return [RowImage(_image(db, top_db), seconds) for db, seconds in shown]


def write_contact_sheet(
    path: Path, images: Sequence[RowImage], labels: Sequence[str], columns: int
) -> None:
    """Write one picture of many spectrograms, atomically; all begin at the left and end in time.

    Args:
        path: Of the PNG.
        images: In order of reading.
        labels: What stands below each.
        columns: How many stand side by side.
    """
    longest = max(image.seconds for image in images)
    rows = -(-len(images) // columns)
    tile = (_TILE_PIXELS[0] + _GAP_PIXELS, _TILE_PIXELS[1] + _LABEL_PIXELS)
    sheet = Image.new(
        "RGB", (columns * tile[0] + _GAP_PIXELS, rows * tile[1] + _GAP_PIXELS), "white"
    )
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LABEL_PIXELS * 0.5)
    for index, (shown, label) in enumerate(zip(images, labels, strict=True)):
        left = _GAP_PIXELS + index % columns * tile[0]
        top = _GAP_PIXELS + index // columns * tile[1]
        width = max(1, round(_TILE_PIXELS[0] * shown.seconds / longest))
        size = (width, _TILE_PIXELS[1])
        sheet.paste(shown.image.convert("RGB").resize(size, Image.Resampling.BOX), (left, top))
        pen.text((left, top + _TILE_PIXELS[1] + 2), label, fill="black", font=font)
    save_png(sheet, path)


def save_png(image: Image.Image, path: Path) -> None:
    """Write an image, whole or not at all."""
    with replacing(path) as draft:
        image.save(draft, format="PNG", optimize=True)


@lru_cache(maxsize=1)
def frequency_ticks() -> tuple[FrequencyTick, ...]:
    """Where some round frequencies lie on the mel axis, read off the filterbank's peaks."""
    config = SpectrogramConfig()
    peaks_hz = mel_filterbank(config).argmax(dim=1).numpy() * (config.max_hz / config.num_bins)
    ticks = []
    for hz in _TICKS_HZ:
        band = int(np.abs(peaks_hz - hz).argmin())
        label = f"{hz // 1000}k" if hz >= 1000 else str(hz)
        ticks.append(FrequencyTick(label, 100 * (band + 0.5) / config.num_mels))
    return tuple(ticks)


def colour_scale() -> tuple[str, ...]:
    """The colours from quiet to loud, as `#rrggbb`."""
    return tuple(f"#{colour}" for colour in _MAGMA.split())


def _log_mel_db(path: Path) -> tuple[NDArray[np.float32], float]:
    """Mean over channels, in dB, `[mel, frame]`, and its length in seconds."""
    config = SpectrogramConfig()
    clip = read_audio(
        os.fspath(path), duration_seconds=SHOWN_SECONDS, sample_rate=config.sample_rate
    )
    log_mel = log_mel_spectrogram(torch.from_numpy(clip.waveform), config)
    return log_mel_to_db(log_mel).mean(dim=0).numpy(), clip.duration_seconds


def _image(db: NDArray[np.float32], top_db: float) -> Image.Image:
    return shaded_image(db, top_db - RANGE_DB, top_db)


def shaded_image(
    values: NDArray[np.float32], lowest: float, highest: float, *, shrink: bool = True
) -> Image.Image:
    """A picture of `[band, column]`, low bands at the bottom, `highest` in the lightest colour.

    A wide one is made narrower unless `shrink` is false.
    """
    shade = np.clip((values - lowest) / (highest - lowest), 0, 1) * (_COLOURS - 1)
    image = Image.fromarray(np.flipud(shade).astype(np.uint8))
    if shrink and image.width > _WIDTH_PIXELS:
        image = image.resize((_WIDTH_PIXELS, image.height), Image.Resampling.BOX)
    image.putpalette(_palette().tobytes())
    return image


def image_uri(image: Image.Image) -> str:
    """A picture as a `data:` URI."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    """`[colour, rgb]`, interpolated between the anchors."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in _MAGMA.split()], dtype=float)
    places = np.linspace(0, len(anchors) - 1, _COLOURS)
    channels = [np.interp(places, np.arange(len(anchors)), column) for column in anchors.T]
    return np.stack(channels, axis=1).round().astype(np.uint8)
