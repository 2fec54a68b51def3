"""Draw docs/overview.png: one clip, and what is left of it at falling rates.

python docs/make_overview.py examples/violin_phrase.flac
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import audiovae
from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import log_mel_spectrogram, log_mel_to_db

QUALITIES = (8, 6, 3)
TARGET = Path(__file__).with_name("overview.png")


def main(path: str) -> None:
    """Draw the original above its decodes, with the true size of each file."""
    model = audiovae.load_model("base")
    clip = audiovae.read_audio(path)
    flac_kbps = Path(path).stat().st_size * 8 / 1000 / clip.duration_seconds
    panels = [(f"original, {flac_kbps:.0f} kbps as {Path(path).suffix[1:]}", clip)]
    for quality in QUALITIES:
        data = audiovae.compress(clip, model, quality=quality)
        kbps = len(data) * 8 / 1000 / clip.duration_seconds
        title = f"{kbps:.1f} kbps, {len(data)} bytes (--quality {quality})"
        panels.append((title, audiovae.decompress(data, model)))
    config = SpectrogramConfig()
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True)
    log_mels = [
        log_mel_to_db(log_mel_spectrogram(torch.from_numpy(one.waveform[:1]), config))[0]
        for _, one in panels
    ]
    top = float(log_mels[0].max())
    for axis, (title, one), log_mel in zip(axes, panels, log_mels, strict=True):
        axis.imshow(
            log_mel.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - 80,
            vmax=top,
            extent=(0, one.duration_seconds, 0, config.num_mels),
        )
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xlabel("seconds", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("mel band", fontsize=8)
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
