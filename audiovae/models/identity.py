"""The identity of a model: what a compressed file names, and no other model has."""

from __future__ import annotations

import hashlib
import json

from audiovae.config import ModelConfig
from audiovae.models.bottlenecks import SymbolTable
from audiovae.models.hvae import HVAE

CODEC_PREFIX = "codec."
"""Before the names of the symbol table's tensors, in a model file and in the identity."""
_ID_CHARACTERS = 16
_SETTINGS = {"spectrogram", "vae", "bottleneck", "quality", "timbre", "label", "pitch"}


def model_id(vae: HVAE, config: ModelConfig, table: SymbolTable | None) -> str:
    """Hash of everything that a compressed file's meaning depends on.

    The tensors' names, shapes and values, the frequency table, and the settings that shape the
    computation. Only settings that were given count (a model file gives all of its time), so a
    setting added by a later version leaves the identity of older models as it is.
    """
    digest = hashlib.sha256()
    settings = config.model_dump(mode="json", include=_SETTINGS, exclude_unset=True)
    digest.update(json.dumps(settings, sort_keys=True).encode() + b"\n")
    tensors = dict(vae.state_dict())
    for name, tensor in (table.tensors() if table else {}).items():
        tensors[CODEC_PREFIX + name] = tensor
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:_ID_CHARACTERS]
