"""Which files are evaluated, and what class of sound each one is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from audiovae.audio import audio_files_below
from audiovae.commands import UsageProblem
from audiovae.errors import ConfigError
from audiovae.labels import folder_labels

_SPEECH_CLASS: Final = "speech"


@dataclass(frozen=True, slots=True)
class ClipFile:
    """A file to be evaluated.

    Attributes:
        path: Where it is.
        name: Below the evaluated directory, with "/" between its parts.
        kind: Class of sound: what `manifest.csv` beside it says, else its folder's name.
    """

    path: Path
    name: str
    kind: str

    @property
    def is_speech(self) -> bool:
        """Whether PESQ means something."""
        return self.kind.casefold() == _SPEECH_CLASS


def find_clips(directory: Path) -> list[ClipFile]:
    """Every file below a directory that is named like audio, sorted; hidden ones are left out.

    Raises:
        UsageProblem: If there is no directory, no such file, or a manifest without its columns.
    """
    if not directory.is_dir():
        raise UsageProblem(f"--data: expected a directory of audio, got '{directory}'; check it")
    paths = audio_files_below(directory)
    if not paths:
        raise UsageProblem(f"--data: expected audio files, found none below '{directory}'")
    kinds = {folder: _manifest_kinds(folder) for folder in {path.parent for path in paths}}
    clips = [
        ClipFile(
            path,
            path.relative_to(directory).as_posix(),
            kinds[path.parent].get(path.name) or path.parent.resolve().name,
        )
        for path in paths
    ]
    return sorted(clips, key=lambda clip: clip.name)


def _manifest_kinds(folder: Path) -> dict[str, str]:
    """Class by file name; empty without a manifest."""
    try:
        return folder_labels(folder)
    except ConfigError as error:
        raise UsageProblem(str(error)) from None
