"""Accelerated Griffin-Lim: frames that overlap are made to agree with each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from audiovae.models.frames import FrameGrid

_AHEAD = 0.9  # alpha of the paper: how far the phase is taken beyond the last step
_CARRIED = 1.2  # beta: the same of what the next step begins with
_STRIDE = 1.25  # gamma: of a step; 1.35 no longer converges
_CANCELLATION = 0.05
_TINY = 1e-9


def polish(magnitude: Tensor, direction: Tensor, grid: FrameGrid, steps: int) -> Tensor:
    """Make sound of a magnitude and a phase, after steps that better the phase.

    The accelerated variant, which extrapolates what it has found in two ways (Nenov, Nguyen and
    Balazs, 2023, arXiv:2306.12504); sixteen of its steps are worth about 32 of the fast one's
    (Perraudin et al., 2013). It can be learnt through, so that a vocoder finds the phase from
    which these very steps lead to a good sound (deep Griffin-Lim iteration, Masuyama et al.,
    2019, arXiv:1903.03971).

    Args:
        magnitude: `[batch, frame, bin]`; it is kept.
        direction: `[batch, frame, bin]`, complex of modulus 1: the phase to begin with, referred
            to the start of each window.
        grid: Of the same frames.
        steps: 0 is the inverse STFT alone.

    Returns:
        `[batch, sample]`, hop samples a frame.
    """
    size = 2 * (magnitude.shape[2] - 1)
    # Twice each, as the parts of a complex number lie: 20 times as fast as complex times real.
    doubled = magnitude.repeat_interleave(2, dim=2)  # [batch, frame, 2 * bin]
    past: tuple[Tensor, Tensor] | None = None  # the last step, and what lies beyond it
    for _ in range(steps):
        joined = grid.join(torch.fft.irfft(_scaled(direction, doubled), n=size))
        found = torch.view_as_real(torch.fft.rfft(grid.split(joined)))
        target = beyond = found
        if past is not None:
            previous, carried = past
            found = torch.lerp(carried, found, _STRIDE)
            target = torch.lerp(previous, found, 1 + _AHEAD)
            beyond = torch.lerp(previous, found, 1 + _CARRIED)
        past = (found, beyond)
        direction = _Direction.apply(torch.view_as_complex(target), magnitude)
    return grid.waveform_of(grid.join(torch.fft.irfft(_scaled(direction, doubled), n=size)))


class _Direction(torch.autograd.Function):
    """Complex numbers brought to modulus 1, with a gradient that stays small at zero.

    Where frames cancel each other, the true gradient of the phase has no bound, and one such bin
    would drown all others: there it is that of a number of a twentieth of the bin's magnitude.
    """

    @staticmethod
    def forward(ctx: Any, target: Tensor, magnitude: Tensor) -> Tensor:
        direction = target.sgn()
        ctx.save_for_backward(target, magnitude)
        return direction

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        target, magnitude = ctx.saved_tensors
        (gradient,) = gradients
        direction = target.sgn()
        along = (gradient * direction.conj()).real * direction
        size = target.abs().maximum(_CANCELLATION * magnitude + _TINY)
        return (gradient - along) / size, None


def _scaled(direction: Tensor, doubled: Tensor) -> Tensor:
    """Complex `[batch, frame, bin]` times real `[batch, frame, 2 * bin]`."""
    parts = torch.view_as_real(direction).flatten(2) * doubled
    return torch.view_as_complex(parts.reshape(*direction.shape, 2))
