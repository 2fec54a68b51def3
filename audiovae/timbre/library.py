"""Timbres with a name: one small safetensors file each, in a directory of the user's.

A file holds the vectors and, as one JSON text in its metadata, the model they belong to and how
many files they were measured on. Nothing in it is executed, and listing needs no PyTorch.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiovae.audio import claims_to_be_audio
from audiovae.errors import AudioWriteError, CheckpointError, ConfigError
from audiovae.replacing import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from audiovae.timbre.value import Timbre

TIMBRE_SUFFIX = ".timbre"
_METADATA_KEY = "audiovae_timbre"  # one key: the order of several would vary from run to run
_FORMAT_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class TimbreFacts:
    """What a timbre file says of its vectors.

    Attributes:
        model_id: Identity of the weights that measured them.
        model_name: How that model was asked for.
        num_files: Files they are the mean of.
        levels: Level of each latent group.
        format_version: Of the file.
    """

    model_id: str
    model_name: str
    num_files: int
    levels: tuple[int, ...]
    format_version: int = _FORMAT_VERSION


def timbre_bytes(timbre: Timbre, model_name: str, num_files: int) -> bytes:
    """A timbre as the bytes of a file; the same timbre makes the same bytes."""
    from safetensors.torch import save

    facts = TimbreFacts(timbre.model_id, model_name, num_files, timbre.levels)
    tensors = {f"mean{i}": mean.cpu() for i, mean in enumerate(timbre.group_means)}
    if timbre.code is not None:
        tensors["code"] = timbre.code.cpu()
    return save(tensors, metadata={_METADATA_KEY: json.dumps(asdict(facts))})


def timbre_from_bytes(data: bytes, source: str) -> Timbre:
    """The timbre that `timbre_bytes` wrote; `source` names it in errors.

    Raises:
        CheckpointError: If the bytes are damaged or of something else.
    """
    facts = facts_from_bytes(data, source)
    from safetensors import SafetensorError
    from safetensors.torch import load

    from audiovae.timbre.value import Timbre

    try:
        tensors = load(data)
        means = tuple(tensors[f"mean{i}"] for i in range(len(facts.levels)))
        if not all(_is_vector(tensor) for tensor in tensors.values()):
            raise ValueError("not all of it is vectors of finite numbers")
    except (SafetensorError, KeyError, ValueError) as error:
        raise _damaged(source, error) from None
    return Timbre(tensors.get("code"), means, facts.levels, facts.model_id)


def facts_from_bytes(data: bytes, source: str) -> TimbreFacts:
    """What the bytes of a timbre file, or their beginning, say of it.

    Raises:
        CheckpointError: If they are damaged, of something else, or of a newer version.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError("no safetensors header")
        facts: dict[str, Any] = json.loads(
            json.loads(data[8 : 8 + length])["__metadata__"][_METADATA_KEY]
        )
        version = facts["format_version"]
        if version == _FORMAT_VERSION:
            return TimbreFacts(**{**facts, "levels": tuple(facts["levels"])})
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(source, error) from None
    raise CheckpointError(
        f"{source}: expected a timbre file of version {_FORMAT_VERSION}, got {version}; "
        "use the audiovae that wrote it, or a newer one"
    )


class TimbreLibrary:
    """A directory of timbre files."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made or read yet."""
        self.folder = folder

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(path.stem for path in self.folder.glob(f"*{TIMBRE_SUFFIX}"))

    def path_of(self, name: str) -> Path:
        """Where a name's file is, or would be.

        Raises:
            ConfigError: If it cannot be a name.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"expected a name of up to 64 letters, digits, '.', '_' and '-', got '{name}'; "
                "choose another name"
            )
        return self.folder / (name + TIMBRE_SUFFIX)

    def read(self, name: str) -> bytes:
        """The bytes of a name's file.

        Raises:
            CheckpointError: If there is none, or it cannot be read.
        """
        path = self.path_of(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            known = ", ".join(self.names()) or "none"
            raise CheckpointError(
                f"expected a saved timbre in {self.folder} ({known}), got '{name}'; "
                "save one with audiovae timbre save"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot read it: {error.strerror}") from None

    def facts(self, name: str) -> TimbreFacts:
        """What a name's file says of itself.

        Raises:
            CheckpointError: If there is none, or it is damaged.
        """
        return facts_from_bytes(self.read(name), str(self.path_of(name)))

    def require_new(self, name: str, *, overwrite: bool) -> Path:
        """Where a name's file will be.

        Raises:
            ConfigError: If it cannot be a name, or exists and may not be replaced.
        """
        path = self.path_of(name)
        if path.exists() and not overwrite:
            raise ConfigError(
                f"expected a new name, got '{name}', which {self.folder} has; "
                "choose another name or add --overwrite"
            )
        return path

    def save(self, name: str, data: bytes, *, overwrite: bool = False) -> Path:
        """Write a name's file atomically.

        Raises:
            ConfigError: If it cannot be a name, or exists and may not be replaced.
            AudioWriteError: If it cannot be written.
        """
        path = self.require_new(name, overwrite=overwrite)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(data)
        except OSError as error:
            raise AudioWriteError(f"{path}: cannot write it: {error.strerror}") from error
        return path

    def remove(self, name: str) -> None:
        """Delete a name's file.

        Raises:
            CheckpointError: If there is none.
        """
        self.read(name)
        self.path_of(name).unlink()


def saved_timbre(target: str, library: TimbreLibrary) -> bytes | None:
    """Bytes of the timbre file that a path or a name stands for; None for a path of audio.

    Raises:
        CheckpointError: If nothing is there.
    """
    path = Path(target)
    if path.suffix == TIMBRE_SUFFIX and path.is_file():
        return path.read_bytes()
    if path.exists() or os.sep in target or claims_to_be_audio(path):
        return None
    if target in library.names():
        return library.read(target)
    known = ", ".join(library.names()) or "none"
    raise CheckpointError(
        f"{target}: expected an audio file, a directory, or a timbre saved in {library.folder} "
        f"({known}), found no such thing"
    )


def default_library() -> Path:
    """The user's own directory of timbres, by the custom of the system."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", home / "AppData" / "Roaming"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "audiovae" / "timbres"


def _is_vector(tensor: Tensor) -> bool:
    return tensor.ndim == 1 and tensor.is_floating_point() and bool(tensor.isfinite().all())


def _damaged(source: str, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return CheckpointError(
        f"{source}: expected a timbre file, got a damaged or foreign one ({reason}); "
        "make it with audiovae timbre save"
    )
