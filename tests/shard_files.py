"""Shards of small folders, as `python -m pipelines.preprocess` makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audiovae.config import SpectrogramConfig
from pipelines.preprocessing.run import PreprocessOptions, PreprocessReport, run_preprocess

CONFIG = SpectrogramConfig()


def make_shards(source: Path | str, target: Path | str, **options: Any) -> PreprocessReport:
    """Run the whole command but for its command line, in two threads of this process."""
    given = {"config": CONFIG, "executor": "local", "num_workers": 2, **options}
    return run_preprocess(PreprocessOptions(str(source), str(target), **given))


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shard_contents(directory: Path) -> dict[str, bytes]:
    """Every file but lock and log with its bytes."""
    company = (".audiovae.lock", "preprocess.log")
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in paths
        if path.name not in company
    }
