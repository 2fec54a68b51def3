"""Tiny models with weights that do something, for tests that need sound but not quality."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch

from audiovae.checkpoint import Model, Provenance, QualityPoint, load_model, save_vae, save_vocoder
from audiovae.config import ModelConfig, VocoderConfig, load_config, parse_config
from audiovae.models.hvae import HVAE
from audiovae.models.vocoder import Vocoder

CONFIGS = Path(__file__).parent.parent / "configs"
_Network = TypeVar("_Network", HVAE, Vocoder)
_MEL_MEAN, _MEL_DEVIATION = -5.0, 2.0
_TIMBRE_GAIN = 20.0


@lru_cache(maxsize=4)
def tiny_vae(seed: int = 0) -> HVAE:
    """The tiny config with every zero-initialised layer stirred, so that all parts matter."""
    return stirred(HVAE(load_config(CONFIGS / "tiny.toml")), seed)


@lru_cache(maxsize=4)
def tiny_vocoder(seed: int = 0) -> Vocoder:
    """Two narrow blocks, stirred."""
    config = tiny_vocoder_config()
    return stirred(Vocoder(config.vocoder, config.spectrogram), seed)


def tiny_vocoder_config() -> ModelConfig:
    """Config of `tiny_vocoder`."""
    return ModelConfig(kind="vocoder", vocoder=VocoderConfig(width=32, num_blocks=2))


def write_tiny_model(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Model files of the tiny VAE and vocoder: `(vae, vocoder)`."""
    vae_path, vocoder_path = folder / "tiny.safetensors", folder / "vocoder.safetensors"
    scale = tuple(QualityPoint(q, 3.0 + q * 0.8, 0.1 * q, 6.0 - 0.3 * q) for q in range(1, 9))
    save_vae(vae_path, tiny_vae(seed), Provenance(data="none", licence="none"), scale)
    save_vocoder(vocoder_path, tiny_vocoder(seed), tiny_vocoder_config(), Provenance())
    return vae_path, vocoder_path


@lru_cache(maxsize=4)
def tiny_timbre_vae(seed: int = 0) -> HVAE:
    """The tiny config with a timbre code, stirred."""
    table = {"channels": 8, "width": 16, "blocks": 1, "context_channels": 8}
    config = load_config(CONFIGS / "tiny.toml").model_dump() | {
        "kind": "timbre",
        "name": "timbre",
        "timbre": table,
        "bottleneck": {"kind": "gaussian"},
        "quality": False,
    }
    network = stirred(HVAE(parse_config(config)), seed)
    with torch.no_grad():  # a stirred code reaches the sound too faintly to be told from rounding
        network.get_submodule("timbre.layers.2").weight.mul_(_TIMBRE_GAIN)
    return network


def write_tiny_timbre_model(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Model files of the tiny VAE with a timbre code, and of the tiny vocoder."""
    vae_path, vocoder_path = folder / "timbre.safetensors", folder / "vocoder.safetensors"
    save_vae(vae_path, tiny_timbre_vae(seed), Provenance(data="none", licence="none"), ())
    save_vocoder(vocoder_path, tiny_vocoder(seed), tiny_vocoder_config(), Provenance())
    return vae_path, vocoder_path


def load_tiny_timbre_model(folder: Path, seed: int = 0) -> Model:
    """The tiny model with a timbre code through its files."""
    vae, vocoder = write_tiny_timbre_model(folder, seed)
    return load_model(vae, vocoder=vocoder)


def load_tiny_model(folder: Path, seed: int = 0) -> Model:
    """The tiny model through its files."""
    vae, vocoder = write_tiny_model(folder, seed)
    return load_model(vae, vocoder=vocoder)


def stirred(network: _Network, seed: int) -> _Network:
    """Every layer moved a little, zero-initialised ones too, so that all parts matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.5 * parameter + 0.05 * noise)
        if isinstance(network, HVAE):
            network.mel_mean.fill_(_MEL_MEAN)
            network.mel_deviation.fill_(_MEL_DEVIATION)
    return network.eval().requires_grad_(False)
