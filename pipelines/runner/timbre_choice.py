"""Which timbre a batch moves its files to, as part of its recipe."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audiovae.timbre.library import TimbreLibrary, default_library, saved_timbre

if TYPE_CHECKING:
    from audiovae.timbre.moves import TimbreMove

_MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class TimbreChoice:
    """A timbre and how far to go to it; small, and can be pickled.

    Attributes:
        name: What outputs are called by.
        amount: 0 is each file's own timbre, 1 this one.
        keep_loudness: Let every half second stay as loud as it was.
        data: A timbre file, base64: every worker has the same vectors, wherever it is.
    """

    name: str
    amount: float
    keep_loudness: bool
    data: str

    def move(self) -> TimbreMove:
        """What is done to the latents of every file. Imports torch.

        Raises:
            CheckpointError: If the timbre file is damaged.
        """
        from audiovae.timbre.library import timbre_from_bytes
        from audiovae.timbre.moves import Course, TimbreMove

        target = timbre_from_bytes(base64.b64decode(self.data), self.name)
        return TimbreMove(target, Course(stop=self.amount), keep_loudness=self.keep_loudness)


def choose_timbre(
    target: str,
    amount: float,
    *,
    keep_loudness: bool,
    library: Path | None,
    checkpoint: str,
    quality: int,
) -> TimbreChoice:
    """Read a saved timbre, or measure one; only measuring loads the model.

    Args:
        target: An audio file, a directory of audio, a timbre file, or the name of a saved timbre.
        amount: How far to go.
        keep_loudness: See `TimbreChoice`.
        library: Directory of saved timbres; None for the user's own.
        checkpoint: The model that measures.
        quality: It measures at.

    Raises:
        AudioReadError: If the audio cannot be read.
        CheckpointError: If there is no such timbre.
    """
    data = saved_timbre(target, TimbreLibrary(library or default_library()))
    if data is None:
        data = _measured(Path(target), checkpoint, quality)
    encoded = base64.b64encode(data).decode("ascii")
    return TimbreChoice(_file_name(target), amount, keep_loudness, encoded)


def _measured(target: Path, checkpoint: str, quality: int) -> bytes:
    import torch

    from audiovae.checkpoint import load_model
    from audiovae.morph.targets import measure_timbre
    from audiovae.timbre.library import timbre_bytes

    torch.set_num_threads(1)  # the vectors are part of the recipe's key: always the same bits
    model = load_model(checkpoint, vocoder=None)
    found = measure_timbre([target], model, quality=quality)
    return timbre_bytes(found.timbre, model.name, found.num_files)


def _file_name(target: str) -> str:
    """What outputs are called by: the target's name as every file system takes it.

    >>> _file_name("/home/me/oboe d'amore.wav"), _file_name("flutes/")
    ('oboe_d_amore', 'flutes')
    """
    name = re.sub(r"[^\w.-]+", "_", Path(target).stem).strip("._")
    return name[:_MAX_NAME_CHARACTERS] or "timbre"
