"""What a sound has beyond the decode of its latents, and how much of it a move keeps.

    log-mel of the moved sound = decode of the moved latents + kept * (log-mel - its own decode)

A timbre model's latents say what is played and leave out much of how this very recording sounds.
Where a move leaves a frame's decode as it was, the frame keeps all that was left out; the further
the decode goes, the less: so nothing moved is the sound itself, and a small step is a small change.
A model that makes files leaves less out, and its files hold gains instead: what those add is its
detail. The residual beside a coarser prediction is that of the Laplacian pyramid (Burt and Adelson,
1983, doi:10.1109/TCOM.1983.1095851).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from audiovae.gains import measure_gains, spread_gains
from audiovae.latents import Detail, Latents
from audiovae.models.bottlenecks import makes_files
from audiovae.models.hvae import HVAE
from audiovae.models.output import VAEOutput

_REACH_NATS = 0.5  # mean move of a frame's bands at which 1 / e of its detail is left


def with_detail(vae: HVAE, log_mel: Tensor, output: VAEOutput) -> Latents:
    """Latents and what they leave of their sound, as far as this kind of model keeps it.

    Args:
        vae: That encoded.
        log_mel: `[batch, mel, frame]`, what it encoded.
        output: What came of it.
    """
    if vae.timbre is not None:
        lacking = log_mel - output.log_mel
    elif makes_files(vae.config.bottleneck):
        lacking = _gains_of_a_file(log_mel, output)
    else:
        return output.latents
    return replace(output.latents, details=(Detail(lacking, output.log_mel),))


def _gains_of_a_file(log_mel: Tensor, output: VAEOutput) -> Tensor:
    lacking = torch.zeros_like(log_mel)
    for row, length in enumerate(output.latents.num_frames.tolist()):
        sound, decoded = log_mel[row, :, :length], output.log_mel[row, :, :length]
        lacking[row, :, :length] = spread_gains(decoded, measure_gains(sound, decoded))
    return lacking


def decode_with_detail(vae: HVAE, latents: Latents, num_frames: int) -> Tensor:
    """As `HVAE.decode`, and the detail that goes with where the latents are now."""
    # Gains go as low as in a file.
    log_floor = vae.config.spectrogram.log_floor if vae.timbre is not None else -math.inf
    return detailed(vae.decode(latents, num_frames), latents, log_floor)


def detailed(decoded: Tensor, latents: Latents, log_floor: float) -> Tensor:
    """Add the detail of latents to their decode.

    Args:
        decoded: `[batch, mel, frame]`, natural log of magnitude.
        latents: What was decoded.
        log_floor: The log-mel of silence, below which nothing goes.
    """
    if not latents.details:
        return decoded
    shares = [one.weight * _share_kept(decoded, one) for one in latents.details]
    total = torch.stack(shares).sum(dim=0).clamp(min=1.0)  # [batch, 1, frame]
    added = sum(share * one.lacking for share, one in zip(shares, latents.details, strict=True))
    return (decoded + added / total).clamp(min=log_floor)


def _share_kept(decoded: Tensor, detail: Detail) -> Tensor:
    """`[batch, 1, frame]`, 1 where a frame's decode is what it was."""
    moved = (decoded - detail.decoded).abs().mean(dim=1, keepdim=True)
    return torch.exp(-moved / _REACH_NATS)
