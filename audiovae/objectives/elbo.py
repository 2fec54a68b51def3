"""The evidence lower bound as a rate-distortion trade-off.

For the quantized bottleneck the KL term is the file size, so the objective of lossy compression
and the (negative) ELBO are one: `lambda * distortion + rate` (Balle et al., 2018,
arXiv:1802.01436). A model without quality conditioning is trained with
`distortion + beta * rate`, both in nats a frame: beta = 1 the VAE with a Laplacian (and, for the
squared part, Gaussian) likelihood of the standardised log-mel (Kingma and Welling, 2014,
arXiv:1312.6114), other values the beta-VAE (Higgins et al., 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.config import ObjectiveConfig
from audiovae.models.blocks import step_mask
from audiovae.models.hvae import HVAE
from audiovae.models.output import VAEOutput
from audiovae.spectrogram import heard_frames, log_mel_to_db

_ENERGY_PATCHES = ((8, 4), (128, 1))
"""Mel bands and frames over which energy is compared: a patch of 46 ms, a whole frame."""
_MIN_POWER = 1e-10  # the square of the log-mel's floor
_MIN_VARIANCE = 1e-4  # in square nats: of a band that does not move, whose root has no slope


@dataclass(frozen=True)
class ElboTerms:
    """The objective and its parts, each `[batch]`.

    Attributes:
        loss: What is minimised.
        distortion: Weighted L1 and squared error of the standardised log-mel, mean over cells,
            and the errors of the energy of patches and of the statistics of bands.
        rate_bits_per_frame: KL terms of all levels, in bits per mel frame.
        log_mel_l1_db: Mean absolute difference of the log-mel in decibels.
    """

    loss: Tensor
    distortion: Tensor
    rate_bits_per_frame: Tensor
    log_mel_l1_db: Tensor


def elbo_terms(
    model: HVAE,
    log_mel: Tensor,
    output: VAEOutput,
    objective: ObjectiveConfig,
) -> ElboTerms:
    """Rate, distortion and their sum for one batch.

    Dividing by sqrt(lambda) keeps the gradients of high and low qualities comparable.

    Args:
        model: Gives the standardisation of the log-mel.
        log_mel: `[batch, mel, frame]`, the target.
        output: What the model made of it.
        objective: Weights of the distortion, and beta.
    """
    num_frames = output.latents.num_frames
    mask = step_mask(num_frames, log_mel.shape[2], 1)  # [batch, 1, frame]
    cells = mask.sum(dim=(1, 2)) * log_mel.shape[1]
    error = (output.log_mel - log_mel) * mask
    standardised = error / model.mel_deviation[:, None]
    l1 = standardised.abs().sum(dim=(1, 2)) / cells
    l2 = standardised.square().sum(dim=(1, 2)) / cells
    distortion = objective.l1_weight * l1 + objective.l2_weight * l2
    if objective.energy_weight:
        energy = energy_error(output.log_mel, log_mel, mask) / model.mel_deviation.mean()
        distortion = distortion + objective.energy_weight * energy
    if objective.statistics_weight:
        statistics = statistics_error(output.log_mel, log_mel, mask) / model.mel_deviation.mean()
        distortion = distortion + objective.statistics_weight * statistics
    rate = output.level_bits().sum(dim=1) / num_frames
    log_lambda = output.latents.conditions.log_lambda
    if log_lambda is None:
        loss = distortion * log_mel.shape[1] + objective.beta * rate * math.log(2.0)
    else:
        loss = torch.exp(0.5 * log_lambda) * distortion + torch.exp(-0.5 * log_lambda) * rate
    for penalty in output.group_penalties:
        loss = loss + penalty.sum(dim=(1, 2)) / num_frames
    l1_db = log_mel_to_db(error.detach().abs().sum(dim=(1, 2)) / cells)
    return ElboTerms(loss, distortion, rate, l1_db)


def energy_error(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of the log energy of patches, in nats of magnitude.

    The L1 of a log-mel is least at the median of what a cell may be, which lies below its mean
    energy: what is decoded comes back too quiet, and the more so the lower the rate. Energy
    summed over patches is nearly certain where single cells are not, so it can be asked for.

    Args:
        estimate: `[batch, mel, frame]`, natural log of magnitude.
        target: `[batch, mel, frame]`.
        mask: `[batch, 1, frame]` of 1 where there is signal.

    Returns:
        `[batch]`.
    """
    share = mask.mean(dim=(1, 2))
    total = torch.zeros_like(share)
    for bands, frames in _ENERGY_PATCHES:
        size = (min(bands, estimate.shape[1]), min(frames, estimate.shape[2]))
        logs = [
            functional.avg_pool2d((2 * log_mel).exp()[:, None] * mask[:, None], size)
            .clamp(min=_MIN_POWER)
            .log()
            for log_mel in (estimate, target)
        ]
        total = total + 0.5 * (logs[0] - logs[1]).abs().mean(dim=(1, 2, 3))
    return total / (len(_ENERGY_PATCHES) * share)


def statistics_error(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of each band's mean and deviation over time, in nats of magnitude.

    By such statistics sounds are told apart where details are not (McDermott and Simoncelli, 2011,
    Sound texture perception via statistics of the auditory periphery). What least absolute error
    makes of an uncertain cell moves too little, so a clip comes back with too small a spread.
    Frames more than 35 dB below the target's loudest do not count.

    Args:
        estimate: `[batch, mel, frame]`, natural log of magnitude.
        target: `[batch, mel, frame]`.
        mask: `[batch, 1, frame]` of 1 where there is signal.

    Returns:
        `[batch]`.
    """
    heard = heard_frames(target.masked_fill(mask == 0, -torch.inf))[:, None].to(target.dtype)
    count = heard.sum(dim=2)  # [batch, 1]
    means, deviations = [], []
    for log_mel in (estimate, target):
        mean = (log_mel * heard).sum(dim=2) / count  # [batch, mel]
        moved = (log_mel - mean[:, :, None]).square() * heard
        means.append(mean)
        deviations.append((moved.sum(dim=2) / count + _MIN_VARIANCE).sqrt())
    errors = [(made - true).abs().mean(dim=1) for made, true in (means, deviations)]
    return 0.5 * (errors[0] + errors[1])
