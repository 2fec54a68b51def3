"""One sound on its way to another, as files.

By default the content of one file stays and its timbre moves: any length goes span by span in
bounded memory. In a blend everything of both goes over (`blend.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from audiovae.audio import claims_to_be_audio
from audiovae.checkpoint import Model
from audiovae.errors import ConfigError
from audiovae.files import process_file
from audiovae.morph.blend import Blend
from audiovae.morph.settings import MorphSettings, glide_course
from audiovae.morph.targets import find_timbre
from audiovae.sources import probe_source
from audiovae.timbre.library import TIMBRE_SUFFIX, TimbreLibrary
from audiovae.timbre.moves import Course, TimbreMove
from audiovae.timbre.value import Timbre
from audiovae.transform import RESYNTHESIZE, TransformSettings

Content = Literal["a", "blend"]


class Morph(Protocol):
    """Everything between two sounds."""

    def step(self, destination: Path, amount: float) -> None:
        """Write the sound at one amount: 0 is the first, 1 the second."""

    def glide(self, destination: Path, glide_seconds: float) -> None:
        """Write one sound that goes from one to the other in its first seconds; 0: in all."""


def plan_morph(
    first: str,
    second: str,
    content: Content | Path,
    model: Model,
    library: TimbreLibrary,
    settings: MorphSettings,
) -> Morph:
    """Measure both ends of a morph.

    Args:
        first: An audio file; with a file as `content` also a directory or a saved timbre.
        second: An audio file; unless both blend also a directory or a saved timbre.
        content: What stays: the content of the first, of another file, or nothing.
        model: That moves.
        library: Of saved timbres.
        settings: How.

    Raises:
        AudioReadError: If a file cannot be read.
        CheckpointError: If a saved timbre cannot be read, or is of another model.
        ConfigError: If the ends do not go with `content`.
    """
    if content == "blend":
        silent = next((end for end in (first, second) if not _is_sound(end)), None)
        if silent is not None:
            raise ConfigError(
                f"expected two audio files to blend, got '{silent}'; "
                "a directory or a saved timbre has no content"
            )
        return Blend(Path(first), Path(second), model, settings)
    if content == "a" and not _is_sound(first):
        raise ConfigError(
            f"expected an audio file as A, whose content stays, got '{first}'; "
            "give the content by --content FILE"
        )
    target = find_timbre(second, model, library, quality=settings.quality)
    if content == "a":
        return TimbreWay(Path(first), target, model, settings)
    origin = find_timbre(first, model, library, quality=settings.quality)
    return TimbreWay(Path(content), target, model, settings, origin)


class TimbreWay:
    """The content of one file, on the way from one timbre to another."""

    def __init__(
        self,
        content: Path,
        target: Timbre,
        model: Model,
        settings: MorphSettings,
        origin: Timbre | None = None,
    ) -> None:
        """Without an origin, the way begins at the timbre that each chunk of the content has."""
        self._content, self._model, self._settings = content, model, settings
        self._target, self._origin = target, origin
        self._seconds = probe_source(content).duration_seconds

    def step(self, destination: Path, amount: float) -> None:
        """As `Morph` says."""
        self._write(destination, Course(stop=amount, curve=self._settings.curve))

    def glide(self, destination: Path, glide_seconds: float) -> None:
        """As `Morph` says."""
        config = self._model.config.spectrogram
        course = glide_course(self._seconds, glide_seconds, config, self._settings.curve)
        self._write(destination, course)

    def _write(self, destination: Path, course: Course) -> None:
        how = self._settings
        move = TimbreMove(self._target, course, self._origin, how.levels, how.keep_loudness)
        settings = TransformSettings(
            (RESYNTHESIZE,),
            quality=how.quality,
            format=how.format,
            polish_steps=how.polish_steps,
            move=move,
        )
        process_file(self._content, {RESYNTHESIZE: destination}, self._model, settings)


def _is_sound(end: str) -> bool:
    """Whether an end of a morph is an audio file, or was meant to be."""
    path = Path(end)
    is_timbre = path.suffix == TIMBRE_SUFFIX or path.is_dir()
    return not is_timbre and (path.is_file() or claims_to_be_audio(path))
