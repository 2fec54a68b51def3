"""Where a command's files go: new ones only, each complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from audiovae.commands import UsageProblem, is_input
from audiovae.replacing import replacing


def require_new(
    results: Path, names: Sequence[str], overwrite: bool, inputs: Sequence[str | Path] = ()
) -> None:
    """Refuse to replace the files of an earlier run unless asked to, and inputs at all.

    Args:
        results: The output directory.
        names: Of what will be written there.
        overwrite: Whether it may replace what is there.
        inputs: Files, and directories of them, that the command reads.

    Raises:
        UsageProblem: If some are there.
    """
    there = [name for name in names if os.path.lexists(results / name)]
    read = [name for name in there if is_input(results / name, *inputs)]
    if read:
        raise UsageProblem(
            f"--output-dir: expected one without {', '.join(read)}, got '{results}'; inputs are "
            "never written to: choose another directory"
        )
    if there and not overwrite:
        raise UsageProblem(
            f"--output-dir: expected one without {', '.join(there)}, got '{results}'; add "
            "--overwrite, or choose another directory"
        )


def write_results(results: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name."""
    results.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replacing(results / name) as draft:
            draft.write_bytes(content)
