"""The evidence lower bound of a model in the terms of the literature, in nats a frame.

    ELBO = E_q[log p(x | z)] - KL(q(z | x) || p(z))

`log p(x | z)` is the density that the objective's distortion stands for: for each cell e of the
standardised log-mel's error, `exp(-(l1 |e| + l2 e^2)) / Z`, a Laplacian if l2 is 0, and the change
of variables of the standardisation. For a model conditioned on a trade-off lambda the weights are
those by which its loss, `lambda * distortion + bits` a frame, is a negative ELBO: times
`lambda ln 2 / num_mels`. It is a density of the log-mel, so it can be compared between
models, and has no meaning as a probability. The energy term of the objective is no likelihood and
is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import erfcx
from torch import Tensor

from audiovae.config import ObjectiveConfig
from audiovae.errors import ConfigError
from audiovae.models.blocks import step_mask
from audiovae.models.hvae import HVAE
from audiovae.models.output import VAEOutput


@dataclass(frozen=True)
class Likelihood:
    """Terms of the ELBO, each `[batch]`, nats a frame.

    Attributes:
        reconstruction: log p(x | z).
        kl: KL(q(z | x) || p(z)), of all levels together.
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """The bound."""
        return self.reconstruction - self.kl


def likelihood(
    model: HVAE, log_mel: Tensor, output: VAEOutput, objective: ObjectiveConfig
) -> Likelihood:
    """Terms of the ELBO of one batch, for the latents that `output` was decoded from.

    Args:
        model: Gives the standardisation.
        log_mel: `[batch, mel, frame]`, the target.
        output: Of `model.forward`: with drawn latents, one draw of the expectation.
        objective: Whose distortion gives the density.
    """
    num_frames = output.latents.num_frames
    mask = step_mask(num_frames, log_mel.shape[2], 1)
    error = (output.log_mel - log_mel) / model.mel_deviation[:, None]
    exponent = objective.l1_weight * error.abs() + objective.l2_weight * error.square()
    per_frame = (exponent * mask).sum(dim=(1, 2)) / num_frames
    num_mels = log_mel.shape[1]
    log_lambda = output.latents.conditions.log_lambda
    weight = torch.ones_like(per_frame)
    if log_lambda is not None:
        weight = log_lambda.exp() * math.log(2.0) / num_mels
    normalisers = [
        log_normaliser(one * objective.l1_weight, one * objective.l2_weight)
        for one in weight.tolist()
    ]
    constant = model.mel_deviation.log().sum() + num_mels * torch.tensor(normalisers).to(weight)
    reconstruction = -weight * per_frame - constant
    kl = output.level_bits().sum(dim=1) * math.log(2.0) / num_frames
    return Likelihood(reconstruction, kl)


def log_normaliser(l1: float, l2: float) -> float:
    """Log Z of `exp(-(l1 |e| + l2 e^2))`.

    >>> round(log_normaliser(2.0, 0.0), 6)  # log(2 / l1)
    0.0

    Raises:
        ConfigError: If both weights are 0: that is no density.
    """
    if l2 > 0:
        return math.log(math.sqrt(math.pi / l2) * float(erfcx(l1 / (2 * math.sqrt(l2)))))
    if l1 > 0:
        return math.log(2 / l1)
    raise ConfigError(
        "expected objective.l1_weight or l2_weight above 0 for a likelihood, got neither"
    )


class UnitActivity:
    """Counts active units: latent channels whose posterior mean depends on the sound.

    The criterion of Burda et al. (2016, arXiv:1509.00519), Var_x(E_q[u]) > 0.01 for a standard
    normal prior, where the prior depends on the levels above: the posterior mean is taken from
    the prior's middle, and its variance compared with that of the prior around it.
    """

    THRESHOLD = 0.01

    def __init__(self) -> None:
        self._moments: dict[int, list[Tensor]] = {}

    def observe(
        self, group: int, latent: Tensor, middle: Tensor, drawn: Tensor, mask: Tensor
    ) -> None:
        """Take in a batch of one group.

        Args:
            group: Which.
            latent: `[batch, channel, step]`, settled.
            middle: The same shape: the prior at temperature 0.
            drawn: The same shape: the prior at temperature 1.
            mask: `[batch, 1, step]`: 0 at steps without signal, which do not count.
        """
        shift, spread = ((one - middle).double() * mask for one in (latent, drawn))
        own = [mask.double().expand_as(shift), shift, shift.square(), spread.square()]
        sums = [one.sum(dim=(0, 2)).cpu() for one in own]
        before = self._moments.get(group, [torch.zeros_like(one) for one in sums])
        self._moments[group] = [a + b for a, b in zip(before, sums, strict=True)]

    def active(self, group: int) -> int:
        """Number of active channels of a group."""
        count, shift, square, spread = self._moments[group]
        variance = square / count - (shift / count).square()
        return int((variance > self.THRESHOLD * (spread / count).clamp(min=1e-12)).sum())
