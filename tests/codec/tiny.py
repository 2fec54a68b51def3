"""A tiny model with lively priors, and chunks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiovae.checkpoint import Model, Provenance, load_model, save_vae
from audiovae.config import BottleneckConfig, LevelConfig, ModelConfig, QualityConfig, VAEConfig
from audiovae.gains import NUM_BANDS, num_blocks
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE

TINY = ModelConfig(
    name="tiny",
    vae=VAEConfig(
        width=32,
        expansion=2,
        head_blocks=1,
        levels=(
            LevelConfig(stride=2, groups=2, channels=6, encoder_blocks=1, decoder_blocks=1),
            LevelConfig(stride=4, groups=1, channels=8, encoder_blocks=1, decoder_blocks=1),
            LevelConfig(stride=8, groups=1, channels=4, encoder_blocks=1, decoder_blocks=1),
        ),
    ),
    bottleneck=BottleneckConfig(max_scale=16.0, scale_table_size=48),
    quality=QualityConfig(embedding_channels=8),
)


def tiny_vae(seed: int = 0, config: ModelConfig = TINY) -> HVAE:
    """Random weights, the prior's too (training starts those at zero), so that scales vary."""
    torch.manual_seed(seed)
    vae = HVAE(config)
    with torch.no_grad():
        vae.mel_mean.fill_(-5.0)
        vae.mel_deviation.fill_(2.0)
        for group in vae.groups:
            group.prior.weight.normal_(0.0, 0.15)
            group.prior.bias.normal_(0.0, 1.0)
            group.posterior.weight.normal_(0.0, 0.15)
        for module in vae.modules():
            if isinstance(film := getattr(module, "film", None), torch.nn.Linear):
                film.weight.normal_(0.0, 0.1)
    return vae


def tiny_model(folder: Path, seed: int = 0, config: ModelConfig = TINY) -> Model:
    """The same, written and loaded as every model is."""
    path = folder / f"{config.name}-{seed}.safetensors"
    save_vae(path, tiny_vae(seed, config), Provenance(seed=seed), ())
    return load_model(path, vocoder=None)


def lively_log_mel(num_frames: int, seed: int, padded_frames: int | None = None) -> Tensor:
    """`[1, 128, frame]` of wandering bands, zero-padded."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 128, num_frames + 15, generator=generator)
    smooth = torch.nn.functional.avg_pool1d(noise, 16, stride=1) * 6
    log_mel = -5.0 + smooth + 0.5 * torch.randn(1, 128, num_frames, generator=generator)
    return torch.nn.functional.pad(log_mel, (0, (padded_frames or num_frames) - num_frames))


@contextmanager
def without_gains() -> Iterator[None]:
    """What is coded meanwhile decodes to the model's own decode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiovae.codec.chunk_coding.measure_gains", _no_gains)
        yield


def _no_gains(_log_mel: Tensor, decoded: Tensor) -> Tensor:
    return torch.zeros(NUM_BANDS, num_blocks(decoded.shape[1]))


def conditions(batch: int, log_lambda: float = 6.0) -> Conditions:
    return Conditions(log_lambda=torch.full((batch,), log_lambda))
