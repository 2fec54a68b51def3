"""Adversarial losses: hinge, feature matching, and their balance with the reconstruction.

The hinge form of the GAN loss (Lim and Ye, 2017, arXiv:1705.02894), the relative L1 of the
discriminators' features (Larsen et al., 2016, arXiv:1512.09300; relative as in EnCodec, Defossez
et al., 2022, arXiv:2210.13438), and EnCodec's balancer: what a weight fixes is the size of a
loss's gradient at the output of the network, whatever the size of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_TINY = 1e-12


def discriminator_hinge_loss(
    real_scores: Sequence[Tensor], made_scores: Sequence[Tensor]
) -> Tensor:
    """Zero once every score of real sound is above 1 and every one of made sound below -1.

    Args:
        real_scores: One tensor a discriminator, batch first.
        made_scores: The same of the vocoder's sound.
    """
    losses = [
        (1 - real.float()).clamp(min=0).mean() + (1 + made.float()).clamp(min=0).mean()
        for real, made in zip(real_scores, made_scores, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_hinge_loss(made_scores: Sequence[Tensor]) -> Tensor:
    """The lower, the more the discriminators take the made sound for real."""
    return torch.stack([-made.float().mean() for made in made_scores]).mean()


def feature_matching_loss(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """Mean over the layers of the L1 between features, relative to the real ones' size.

    Args:
        real: Features of all layers, batch first; no gradient goes into them.
        made: The same of the vocoder's sound.
    """
    losses = [
        (a.detach() - b).abs().mean() / a.detach().abs().mean().clamp(min=_TINY)
        for a, b in zip(real, made, strict=True)
    ]
    return torch.stack(losses).mean()


def balanced(
    outputs: Sequence[Tensor], reference: Tensor, losses: Mapping[str, tuple[Tensor, float]]
) -> Tensor:
    """A scalar that stands for a reference and other losses whose gradients have given sizes.

    Its gradient at a network's outputs is the reference's plus that of every loss, scaled to the
    loss's weight times the size of the reference's. Each loss is followed back to the outputs
    once, here, and the scalar leads on from there, so no pass is made twice. Its value means
    nothing.

    Args:
        outputs: Of the network, of one scale throughout; all losses are functions of them. (A
            waveform is none: the gradient of a logarithmic loss grows as the sound gets quiet.)
        reference: The reconstruction loss.
        losses: Name to loss and weight.
    """
    total = list(torch.autograd.grad(reference, outputs, retain_graph=True))
    size = _joint_norm(total)
    for loss, weight in losses.values():
        gradients = torch.autograd.grad(loss, outputs, retain_graph=True)
        scale = weight * size / _joint_norm(gradients).clamp(min=_TINY)
        total = [sum_ + scale * own for sum_, own in zip(total, gradients, strict=True)]
    parts = [(output * own).sum() for output, own in zip(outputs, total, strict=True)]
    return torch.stack(parts).sum()


def _joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.stack([tensor.norm() for tensor in tensors]).norm()
    return norm
