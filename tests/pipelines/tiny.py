"""`batch_transform` with the tiny model: `python -m tests.pipelines.tiny MODELS ARGUMENTS...`."""

from __future__ import annotations

import sys
from pathlib import Path

from audiovae import pretrained
from audiovae.commands import end_process
from pipelines.batch_transform import main


def run(models: Path, *arguments: str | Path) -> int:
    """Run the command as if `models` were what ships."""
    pretrained.PRETRAINED_DIR = models
    return main(["--checkpoint", "tiny", *(str(argument) for argument in arguments)])


if __name__ == "__main__":
    end_process(run(Path(sys.argv[1]), *sys.argv[2:]))
