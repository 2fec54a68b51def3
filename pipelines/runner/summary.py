"""`summary.json`: what a reader, or another program, wants to know of a finished batch.

It is written last and removed first, so it is there exactly if the batch is finished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from audiovae.replacing import replacing
from pipelines.runner.progress import duration
from pipelines.runner.recipe import Recipe
from pipelines.runner.rows import Row

SUMMARY_NAME: Final = "summary.json"
_DECIMALS: Final = 3


@dataclass(slots=True)
class RunFacts:
    """What only the run itself knows; grows while it goes on."""

    executor: str
    device: str = ""
    num_workers: int = 0
    model_name: str = ""
    model_id: str = ""
    files: int = 0
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    failed_files: int = 0
    dead_workers: int = 0

    @property
    def times_realtime(self) -> float:
        """Seconds of audio done per second of wall time."""
        return self.audio_seconds / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def pace(self) -> str:
        """The same for a reader."""
        return (
            f"{duration(self.audio_seconds)} of audio in {duration(self.wall_seconds)} "
            f"({self.times_realtime:.1f}x realtime)"
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums and means over the rows of a manifest."""

    ok: int
    error: int
    skipped: int
    audio_seconds: float
    input_bytes: int
    output_bytes: int
    kbps: float | None
    estimated_kbps: float | None
    log_mel_l1_db: float | None
    errors_by_kind: dict[str, int]
    missed: int = 0  # of those that are ok: files whose rate or size is not what was asked for


def add_up(rows: Iterable[Row]) -> Totals:
    """Read every row once. Means are weighted by seconds of audio."""
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    seconds, missed = 0.0, 0
    sizes = [0, 0]
    means = {"kbps": _Mean(), "estimated_kbps": _Mean(), "log_mel_l1_db": _Mean()}
    for row in rows:
        counts[row["status"]] += 1
        if row["status"] == "error":
            errors[row["error"]] += 1
        if row["status"] != "ok":
            continue
        missed += bool(row.get("note"))
        seconds += row["seconds"]
        sizes[0] += row["size"]
        sizes[1] += sum(output["size"] for output in row["outputs"])
        for name, mean in means.items():
            mean.add(row.get(name), row["seconds"])
    return Totals(
        ok=counts["ok"],
        error=counts["error"],
        skipped=counts["skipped"],
        audio_seconds=seconds,
        input_bytes=sizes[0],
        output_bytes=sizes[1],
        kbps=means["kbps"].value,
        estimated_kbps=means["estimated_kbps"].value,
        log_mel_l1_db=means["log_mel_l1_db"].value,
        errors_by_kind=dict(sorted(errors.items())),
        missed=missed,
    )


def write_summary(
    folder: Path,
    names: tuple[str, str],
    recipe: Recipe,
    version: str,
    totals: Totals,
    run: RunFacts,
) -> Path:
    """Write `summary.json` into a folder, atomically, with its keys in a fixed order.

    Args:
        folder: Of the books.
        names: Of input and output directory.
        recipe: What was done.
        version: Of this package.
        totals: Sums over the manifest.
        run: What the run knows of itself.
    """
    summary: dict[str, Any] = {
        "audiovae_version": version,
        "input": names[0],
        "output_dir": names[1],
        "model": {"name": run.model_name, "id": run.model_id, "weights": recipe.weights},
        "recipe": {**asdict(recipe), "key": recipe.key},
        "totals": _rounded(asdict(totals)),
        "run": _rounded(
            {
                "executor": run.executor,
                "device": run.device,
                "num_workers": run.num_workers,
                "files": run.files,
                "failed_files": run.failed_files,
                "dead_workers": run.dead_workers,
                "audio_seconds": run.audio_seconds,
                "wall_seconds": run.wall_seconds,
                "times_realtime": run.times_realtime,
                "stage_seconds": dict(sorted(run.stage_seconds.items())),
            }
        ),
    }
    path = folder / SUMMARY_NAME
    with replacing(path) as draft:
        draft.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return path


class _Mean:
    """A weighted mean that grows."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, value: float | None, weight: float) -> None:
        if value is not None:
            self._sum += value * weight
            self._weight += weight

    @property
    def value(self) -> float | None:
        return self._sum / self._weight if self._weight else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return value
