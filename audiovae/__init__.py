"""audiovae: audio through one hierarchical VAE, to tiny files, new timbres and new sounds.

    model = audiovae.load_model("base")
    clip = audiovae.read_audio("in.wav")
    data = audiovae.compress(clip, model)
    audiovae.write_audio("out.wav", audiovae.decompress(data, model))

Names are imported when first used, so that a command line answers before PyTorch has loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiovae.arithmetic import attribute_vector, interpolate, transfer
    from audiovae.audio import AudioInfo, Clip, probe_audio, read_audio, resample, write_audio
    from audiovae.checkpoint import Model, load_model
    from audiovae.clips import decode, encode
    from audiovae.config import ModelConfig, SpectrogramConfig, load_config
    from audiovae.errors import AudioVAEError
    from audiovae.files import compress, decompress, resynthesize
    from audiovae.latents import Conditions, Latents
    from audiovae.spectrogram import log_mel_spectrogram
    from audiovae.timbre.value import Timbre

__version__ = "0.1.0"

__all__ = [
    "AudioInfo",
    "AudioVAEError",
    "Clip",
    "Conditions",
    "Latents",
    "Model",
    "ModelConfig",
    "SpectrogramConfig",
    "Timbre",
    "__version__",
    "attribute_vector",
    "compress",
    "decode",
    "decompress",
    "encode",
    "interpolate",
    "load_config",
    "load_model",
    "log_mel_spectrogram",
    "probe_audio",
    "read_audio",
    "resample",
    "resynthesize",
    "transfer",
    "write_audio",
]

_HOMES = {
    "attribute_vector": "arithmetic",
    "interpolate": "arithmetic",
    "transfer": "arithmetic",
    "AudioInfo": "audio",
    "Clip": "audio",
    "probe_audio": "audio",
    "read_audio": "audio",
    "resample": "audio",
    "write_audio": "audio",
    "Model": "checkpoint",
    "load_model": "checkpoint",
    "decode": "clips",
    "encode": "clips",
    "ModelConfig": "config",
    "SpectrogramConfig": "config",
    "load_config": "config",
    "AudioVAEError": "errors",
    "Conditions": "latents",
    "Latents": "latents",
    "log_mel_spectrogram": "spectrogram",
    "Timbre": "timbre.value",
    "compress": "files",
    "decompress": "files",
    "resynthesize": "files",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'audiovae' has no attribute '{name}'")
    return getattr(importlib.import_module(f"audiovae.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted(__all__)
