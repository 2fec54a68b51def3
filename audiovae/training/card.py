"""The model card that goes with a model file: what it is, where it comes from, how it learnt."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from audiovae.checkpoint import Checkpoint, load_checkpoint
from audiovae.pretrained import MODEL_NAME

CARD_NAME, CURVES_NAME = "card.md", "curves.png"
_FEW_POINTS = 20  # fewer than these are marked: a line of one would not be seen


def write_model_card(run_dir: Path) -> Path:
    """Write `card.md` and `curves.png` beside the model file of a finished run.

    Args:
        run_dir: With model.safetensors, metrics.csv and validation.csv.

    Returns:
        The card's path.

    Raises:
        CheckpointError: If the model file cannot be read.
    """
    checkpoint = load_checkpoint(run_dir / MODEL_NAME)
    _draw_curves(run_dir)
    card = run_dir / CARD_NAME
    card.write_text(model_card(checkpoint, [CURVES_NAME]), encoding="utf-8")
    return card


def model_card(checkpoint: Checkpoint, images: Sequence[str]) -> str:
    """The text of a card, in Markdown.

    Args:
        checkpoint: Of the model file.
        images: Names of files beside the card.
    """
    provenance = checkpoint.provenance
    numbers = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    lines = [
        f"# {checkpoint.config.name} ({checkpoint.kind})",
        "",
        "| | |",
        "|---|---|",
        f"| numbers in the file | {numbers / 1e6:.2f} M |",
        f"| trained | {provenance.steps} steps, {provenance.minutes:.1f} minutes, "
        f"seed {provenance.seed}, audiovae {provenance.audiovae_version} |",
        f"| data | {provenance.data} |",
        f"| licence | {provenance.licence} |",
        "",
        "## On clips held back from training",
        "",
        "| figure | value |",
        "|---|---|",
        *[f"| {name} | {value:g} |" for name, value in provenance.metrics.items()],
        "",
    ]
    if checkpoint.quality_scale:
        lines += [
            "## The quality scale",
            "",
            "Model's own rate and log-mel difference on the same clips.",
            "",
            "| quality | kbps | log-mel difference (dB) |",
            "|---|---|---|",
            *[
                f"| {point.quality} | {point.kbps:.2f} | {point.log_mel_l1_db:.2f} |"
                for point in checkpoint.quality_scale
            ],
            "",
        ]
    shown = [f"![{Path(image).stem}]({image})\n" for image in images]
    return "\n".join([*lines, *shown])


def _draw_curves(run_dir: Path) -> None:
    """One small plot for each column of the two logs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = {
        f"{name}: {column}": points
        for name in ("metrics", "validation")
        for column, points in _columns(run_dir / f"{name}.csv").items()
        if column not in ("seconds", "steps_per_second")
        and not (name == "validation" and "Hz_" in column)
    }
    columns = 4
    rows = max(1, -(-len(series) // columns))
    figure = Figure(figsize=(3 * columns, 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (title, (steps, values)) in zip(axes, series.items(), strict=False):
        axis.plot(steps, values, linewidth=1, marker="." if len(steps) < _FEW_POINTS else None)
        axis.set_title(title, fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
    for axis in axes[len(series) :]:
        axis.set_axis_off()
    figure.supxlabel("step", fontsize=8)
    figure.savefig(run_dir / CURVES_NAME, dpi=70)


def _columns(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Each column of a log as its steps and values."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name != "step"]
    return {
        name: (
            [int(row["step"]) for row in rows if row[name]],
            [float(row[name]) for row in rows if row[name]],
        )
        for name in names
    }
