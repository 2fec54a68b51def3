"""Where an evaluation's files go: new ones only, each complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from audiovae.commands import UsageProblem


def require_new(results: Path, names: Sequence[str], overwrite: bool) -> None:
    """Refuse to replace the files of an earlier run unless asked to.

    Raises:
        UsageProblem: If some are there.
    """
    there = [name for name in names if os.path.lexists(results / name)]
    if there and not overwrite:
        raise UsageProblem(
            f"--output-dir: expected one without {', '.join(there)}, got '{results}'; add "
            "--overwrite, or choose another directory"
        )


def write_results(results: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name."""
    results.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        temporary = results / f".{name}.tmp"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, results / name)
        finally:
            temporary.unlink(missing_ok=True)
