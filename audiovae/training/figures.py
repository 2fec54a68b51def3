"""Images that show how a training run is doing."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import log_mel_to_db


def save_spectrogram_pairs(
    path: Path, original: Tensor, decoded: Tensor, config: SpectrogramConfig
) -> None:
    """Draw an original log-mel above its reconstruction, on one colour scale.

    Args:
        path: PNG file to write; its directory is made.
        original: `[mel, frame]`.
        decoded: `[mel, frame]`.
        config: Gives the time axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True)
    seconds = original.shape[1] / config.frames_per_second
    top = float(log_mel_to_db(original).max())
    for axis, log_mel, title in zip(
        axes, (original, decoded), ("original", "decoded"), strict=True
    ):
        image = axis.imshow(
            log_mel_to_db(log_mel.float()).cpu().numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - 90,
            vmax=top,
            extent=(0, seconds, 0, config.num_mels),
        )
        axis.set_title(title, loc="left")
        axis.set_ylabel("mel band")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(axes), label="dB")
    figure.savefig(path, dpi=80)
