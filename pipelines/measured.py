"""Measurements of a directory: made by the batch machinery, resumable, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from audiovae.commands import ExitStatus, UsageProblem
from audiovae.errors import EmptyAudioError
from pipelines.runner.desk import MANIFEST_NAME

if TYPE_CHECKING:
    from audiovae.analysis.pooling import Arrays
    from pipelines.runner.executor import Executor

Measurement = Literal["embedding", "profile"]


@dataclass(frozen=True, slots=True)
class Workforce:
    """Who measures: what every command says of it."""

    checkpoint: str = "base"
    executor: Executor = "auto"
    num_workers: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """One measured input: its path below the root, itself, its arrays, and its length."""

    name: str
    source: Path
    arrays: Path
    seconds: float


class Profiles(Sequence["Arrays"]):
    """The arrays of measured files, read when they are asked for."""

    def __init__(self, files: Sequence[MeasuredFile]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Arrays: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Arrays]: ...
    def __getitem__(self, index: int | slice) -> Arrays | Sequence[Arrays]:
        """Read one, or say which are to be read."""
        from audiovae.measuring import load_arrays

        if isinstance(index, slice):
            return Profiles(self._files[index])
        return load_arrays(self._files[index].arrays)


def input_root(given: Path) -> Path:
    """The directory that names of inputs are relative to.

    Raises:
        UsageProblem: If there is no such file or directory.
    """
    path = Path(os.path.abspath(given))
    if not path.exists():
        raise UsageProblem(
            f"expected a directory of audio, got '{given}', which does not exist; "
            "check the spelling"
        )
    return path if path.is_dir() else path.parent


def require_apart(results: Path, *roots: Path) -> None:
    """Refuse an output directory that inputs lie in.

    Args:
        results: The output directory.
        roots: What `input_root` says of each input.

    Raises:
        UsageProblem: If it is, or contains, one of `roots`.
    """
    for root in roots:
        if root == results or results in root.parents:
            raise UsageProblem(
                f"--output-dir: expected a directory that does not contain the inputs, got "
                f"'{results}'; choose another"
            )


def measure_directory(
    given: Path, output_dir: Path, measurement: Measurement, workforce: Workforce
) -> tuple[ExitStatus, list[MeasuredFile]]:
    """Measure what is new in a directory, and list all that is measured, sorted by name.

    Args:
        given: A directory, or a file.
        output_dir: Of the batch: manifest, log, and the arrays of each input.
        measurement: What is kept of each.
        workforce: Who does it.

    Raises:
        UsageProblem: If the command line asks for something that cannot be.
        EmptyAudioError: If nothing could be measured.
    """
    from pipelines.runner.batch import BatchOptions, run_batch
    from pipelines.runner.recipe import Recipe, weights_identity

    root = input_root(given)
    weights = weights_identity(workforce.checkpoint)
    recipe = Recipe((measurement,), workforce.checkpoint, weights, 0, "wav")
    options = BatchOptions(
        str(given),
        recipe,
        output_dir,
        workforce.executor,
        workforce.num_workers,
        workforce.device,
        overwrite=True,  # what it replaces there are measurements
        report=False,
    )
    status = run_batch(options)
    files = _measured(output_dir, root, recipe.key)
    if not files:
        raise EmptyAudioError(
            f"{given}: expected audio to measure, got none that could be read; "
            f"see {output_dir / MANIFEST_NAME}"
        )
    return status, files


def _measured(output_dir: Path, root: Path, key: str) -> list[MeasuredFile]:
    """The files that a finished batch has measured."""
    files = []
    with (output_dir / MANIFEST_NAME).open(encoding="utf-8") as manifest:
        for line in manifest:
            row = json.loads(line)
            if row["status"] != "ok" or row["recipe"] != key:
                continue
            (output,) = row["outputs"]
            name = row["path"]
            files.append(
                MeasuredFile(name, root / name, output_dir / output["path"], row["seconds"])
            )
    return files
