from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.runner.recipe import Recipe
from pipelines.runner.summary import RunFacts, add_up, write_summary

RECIPE = Recipe(("resynthesize",), "base", "w" * 16, 6, "wav")
EXACT = 1e-12


def ok(seconds: float, kbps: float | None) -> dict[str, Any]:
    outputs = [{"product": "resynthesize", "path": "x", "size": 7}]
    return {
        "status": "ok",
        "size": 100,
        "seconds": seconds,
        "estimated_kbps": kbps,
        "log_mel_l1_db": 2.0,
        "outputs": outputs,
    }


def error(kind: str) -> dict[str, Any]:
    return {"status": "error", "error": kind, "reason": "x"}


def test_means_are_weighted_by_seconds() -> None:
    totals = add_up([ok(1.0, 4.0), ok(3.0, 2.0), ok(2.0, None), {"status": "skipped"}])
    assert totals.estimated_kbps == pytest.approx(2.5, rel=EXACT)
    assert (totals.ok, totals.error, totals.skipped) == (3, 0, 1)
    assert (totals.audio_seconds, totals.input_bytes, totals.output_bytes) == (6.0, 300, 21)


def test_nothing_done_has_no_means() -> None:
    totals = add_up([error("B"), error("A"), error("B")])
    assert totals.estimated_kbps is None
    assert list(totals.errors_by_kind.items()) == [("A", 1), ("B", 2)]


def test_summary_is_the_same_whatever_the_order_of_events(tmp_path: Path) -> None:
    totals = add_up([ok(1.0, 4.0)])
    texts = []
    for stages in ({"decode": 1.0, "encode": 2.0}, {"encode": 2.0, "decode": 1.0}):
        facts = RunFacts("local", "cpu", 2, "base", "id", 1, 10.0, 4.0, stages)
        path = write_summary(tmp_path, ("/in", "/out"), RECIPE, "0.1.0", totals, facts)
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    summary = json.loads(texts[0])
    assert summary["run"]["times_realtime"] == pytest.approx(2.5, rel=EXACT)
    assert summary["recipe"]["key"] == RECIPE.key
    assert list(summary) == [
        "audiovae_version",
        "input",
        "output_dir",
        "model",
        "recipe",
        "totals",
        "run",
    ]
