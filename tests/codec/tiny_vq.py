"""A tiny vq model with lively codebooks and rows that differ."""

from __future__ import annotations

from pathlib import Path

import torch

from audiovae.checkpoint import Model, Provenance, load_model, save_vae
from audiovae.config import BottleneckConfig
from audiovae.models.bottlenecks.vq import Bottleneck
from audiovae.models.hvae import HVAE
from tests.codec.tiny import TINY, tiny_vae

TINY_VQ = TINY.model_copy(
    update={
        "name": "tiny_vq",
        "bottleneck": BottleneckConfig(kind="vq", codebooks=3, codes=16, prior_rows=6),
    }
)


def tiny_vq_vae(seed: int = 0) -> HVAE:
    """Random weights; codebooks of falling size, as residual stages have."""
    vae = tiny_vae(seed, TINY_VQ)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for kind in vae.bottlenecks():
            assert isinstance(kind, Bottleneck)
            sizes = 0.5 ** torch.arange(kind.config.codebooks)[:, None, None]
            kind.codes.copy_(sizes * torch.randn(kind.codes.shape, generator=generator))
            kind.usage.fill_(1 / kind.config.codes)
            kind.sums.copy_(kind.codes / kind.config.codes)
            rows = torch.randn(kind.row_counts.shape, generator=generator)
            kind.row_counts.copy_(torch.softmax(3 * rows, dim=2) / kind.config.prior_rows)
            kind.transitions.normal_(0.0, 1.0, generator=generator)
    return vae.eval()


def tiny_vq_model(folder: Path, seed: int = 0) -> Model:
    """The same, written and loaded as every model is."""
    path = folder / f"tiny_vq-{seed}.safetensors"
    save_vae(path, tiny_vq_vae(seed), Provenance(seed=seed), ())
    return load_model(path, vocoder=None)
