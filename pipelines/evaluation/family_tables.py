"""The family's table as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.evaluation.family_bench import Figures, Member
from pipelines.evaluation.tables import markdown_table


@dataclass(frozen=True)
class FamilyRow:
    """One member.

    Attributes:
        name: Of its run.
        kind: Of its bottleneck.
        model_id: Of its weights.
        parameters: Of the VAE, codebooks included.
        steps: Of training.
        minutes: Of training, wall clock.
        figures: What was measured, by key; None for what it does not have.
    """

    name: str
    kind: str
    model_id: str
    parameters: int
    steps: int
    minutes: float
    figures: Figures

    @classmethod
    def of(cls, name: str, member: Member, figures: Figures) -> FamilyRow:
        """A measured member."""
        model = member.model
        origin = model.provenance
        return cls(
            name,
            model.config.bottleneck.kind,
            model.id,
            member.num_parameters,
            origin.steps,
            origin.minutes,
            figures,
        )

    @property
    def active_units(self) -> str:
        """Active units of each level, coarse to fine."""
        prefix = "active_units_"
        levels = {k.removeprefix(prefix): v for k, v in self.figures.items() if prefix in k}
        return ", ".join(f"{v:.0f} at {k}" for k, v in levels.items() if v is not None)


Cell = Callable[[FamilyRow], str]


def _figure(key: str, digits: int) -> Cell:
    def cell(row: FamilyRow) -> str:
        value = row.figures.get(key)
        return "" if value is None else f"{value:.{digits}f}"

    return cell


_TABLES: Final[dict[str, dict[str, Cell]]] = {
    "Likelihood and rate": {
        "M parameters": lambda row: f"{row.parameters / 1e6:.2f}",
        "steps": lambda row: str(row.steps),
        "log p(x given z)": _figure("reconstruction", 1),
        "KL": _figure("kl", 2),
        "ELBO": _figure("elbo", 1),
        "kbps": _figure("kbps", 3),
        "kbps of files": _figure("file_kbps", 3),
        "active units": lambda row: row.active_units,
    },
    "Sound and samples": {
        "log-mel dB": _figure("log_mel_db", 2),
        "mel distance": _figure("mel_distance", 3),
        "Frechet distance": _figure("frechet", 1),
        "nearest training window": _figure("nearest", 3),
    },
    "Latent space": {
        "path ratio": _figure("path_ratio", 3),
        "longest step": _figure("longest_step", 3),
        "DCI disentanglement": _figure("dci_disentanglement", 3),
        "DCI informativeness": _figure("dci_informativeness", 3),
        "instrument": _figure("accuracy_instrument", 3),
        "pitch": _figure("accuracy_pitch", 3),
        "velocity": _figure("accuracy_velocity", 3),
    },
}


def tables(rows: Sequence[FamilyRow]) -> str:
    """The tables, one under the other; columns that are empty throughout are left out."""
    return "\n\n".join(f"## {title}\n\n{_table(rows, title)}" for title in _TABLES)


def report(rows: Sequence[FamilyRow], facts: Sequence[str]) -> str:
    """The Markdown file: facts, tables, and which run each row is from."""
    runs = [["run", "bottleneck", "model id", "steps", "minutes"]]
    for row in rows:
        minutes = f"{row.minutes:.1f}"
        runs.append([row.name, row.kind, row.model_id, str(row.steps), minutes])
    parts = ["# The VAE family", "\n".join(f"- {fact}" for fact in facts), tables(rows), _LEGEND]
    return "\n\n".join([*parts, "## Runs", markdown_table(runs)]) + "\n"


def csv_text(rows: Sequence[FamilyRow]) -> str:
    """Every figure with full precision, a row a member."""
    keys = list(dict.fromkeys(key for row in rows for key in row.figures))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "bottleneck", "model_id", "parameters", "steps", "minutes", *keys])
    for row in rows:
        values = [row.figures.get(key) for key in keys]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        about = [row.name, row.kind, row.model_id, row.parameters, row.steps, row.minutes]
        writer.writerow([*about, *cells])
    return text.getvalue()


def _table(rows: Sequence[FamilyRow], title: str) -> str:
    cells = {name: [cell(row) for row in rows] for name, cell in _TABLES[title].items()}
    kept = {name: column for name, column in cells.items() if any(column)}
    lines = [["", *kept]]
    for index, row in enumerate(rows):
        lines.append([row.name, *(column[index] for column in kept.values())])
    return markdown_table(lines)


_LEGEND: Final = """\
*log p(x given z)*, *KL* and *ELBO* are in nats a frame, of latents drawn from the posterior, under
the likelihood the model was trained with. *kbps*: the KL of settled latents; *kbps of files*: all
bytes of compressed files, for models that write them. *Active units*: Burda et al. (2016), against
the prior's own variance. *Log-mel dB* is of what the VAE decodes, *mel distance* of the sound.
*Frechet distance* (lower is better): between the sound of samples of the prior and the clips, by
the mean and deviation of 20 MFCCs in windows of 1.5 s. *Nearest training window*: mean distance of
a sample from the nearest window of a training recording in that embedding, in deviations; 0 would
be a copy. *Path ratio* and *longest step*: length of the way between two clips in that embedding
over the straight line, and its longest of 8 steps over the mean; 1 is straight and even. *DCI*:
Eastwood and Williams (2018), random forests on the latents' means over time of rendered notes;
informativeness is the mean of the accuracies on held-back notes that stand beside it."""
