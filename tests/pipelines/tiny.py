"""`batch_transform` with the tiny model: `python -m tests.pipelines.tiny MODELS ARGUMENTS...`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from audiovae import pretrained
from audiovae.commands import end_process
from pipelines.batch_transform import main
from pipelines.runner import batch
from pipelines.runner.worker import Worker, Workplace

_MODELS = "AUDIOVAE_TEST_MODELS"


class TinyWorkplace(Workplace):
    """A place that finds the tiny models in other processes too."""

    def open(self) -> Worker:
        pretrained.PRETRAINED_DIR = Path(os.environ[_MODELS])
        return super().open()


def run(models: Path, *arguments: str | Path) -> int:
    """Run the command as if `models` were what ships."""
    os.environ[_MODELS] = str(models)
    pretrained.PRETRAINED_DIR = models
    batch.Workplace = TinyWorkplace  # type: ignore[misc]
    return main(["--checkpoint", "tiny", *(str(argument) for argument in arguments)])


if __name__ == "__main__":
    # By its full name, so that another process can find the place.
    tiny = importlib.import_module("tests.pipelines.tiny")
    end_process(tiny.run(Path(sys.argv[1]), *sys.argv[2:]))
