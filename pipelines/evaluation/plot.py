"""Rate against distortion, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pipelines.evaluation.bench import COPY_SYNTHESIS, GRIFFIN_LIM, MODEL, MODEL_GRIFFIN_LIM, OPUS
from pipelines.evaluation.tables import MeanRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES: Final = {MODEL: ("C0", "o-"), MODEL_GRIFFIN_LIM: ("C2", ".:"), OPUS: ("C1", "s-")}
_LEVELS: Final = {COPY_SYNTHESIS: ("C0", "--"), GRIFFIN_LIM: ("C2", ":")}
_TICKS_KBPS: Final = (0.25, 0.5, 1, 2, 4, 8, 16, 32)


def rate_distortion_png(means: Sequence[MeanRow], title: str) -> bytes:
    """Draw true kbps (log axis) against mel distance and *short*.

    Systems without bits are horizontal lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for axis, (key, name) in zip(
        axes, (("mel_distance", "mel distance"), ("short", "short")), strict=True
    ):
        _draw(axis, means, key)
        axis.set_title(name, loc="left")
    axes[0].legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


def _draw(axis: Axes, means: Sequence[MeanRow], key: str) -> None:
    for system, (colour, style) in _CURVES.items():
        points = [mean for mean in means if mean.system == system]
        if points:
            rates = [mean.figures["kbps"] or 0.0 for mean in points]
            heights = [mean.figures[key] or 0.0 for mean in points]
            axis.plot(rates, heights, style, color=colour, label=system)
            if system != MODEL_GRIFFIN_LIM:
                _name_points(axis, points, rates, heights)
    for mean in means:
        if mean.system in _LEVELS:
            colour, style = _LEVELS[mean.system]
            axis.axhline(
                mean.figures[key] or 0.0,
                color=colour,
                ls=style,
                lw=1,
                label=f"{mean.system} of the true log-mel",
            )
    axis.set_xscale("log")
    axis.set_xticks(_TICKS_KBPS, [f"{kbps:g}" for kbps in _TICKS_KBPS], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_xlabel("kbps, all bytes of the file")
    axis.set_ylim(0, 1.08 * max(mean.figures[key] or 0.0 for mean in means))
    axis.grid(alpha=0.3)


def _name_points(
    axis: Axes, points: Sequence[MeanRow], rates: Sequence[float], heights: Sequence[float]
) -> None:
    for mean, rate, height in zip(points, rates, heights, strict=True):
        axis.annotate(
            str(mean.setting),
            (rate, height),
            xytext=(0, -11),
            textcoords="offset points",
            fontsize="x-small",
            ha="center",
        )
