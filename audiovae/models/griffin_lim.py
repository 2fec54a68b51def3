"""Accelerated Griffin-Lim: frames that overlap are made to agree with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiovae.models.frames import FrameGrid

_AHEAD = 0.9  # alpha of the paper: how far the phase is taken beyond the last step
_CARRIED = 1.2  # beta: the same of what the next step begins with
_STRIDE = 1.25  # gamma: of a step; 1.35 no longer converges
_CANCELLATION = 0.05
_TINY = 1e-9
_LEVELLED_EVERY = 4  # steps
_MISSING_SHARE = 0.4  # of what a band lacks: is added
_FOUND_SHARE = 0.2  # of the magnitude: what the sound has; the rest stays as it was
_MAX_CHANGE = 2.0  # nats a time


@dataclass(frozen=True)
class BandLevels:
    """What a log-mel says of the magnitude of a sound.

    Frames that overlap cannot all have the magnitude that they are to have, and what they have
    once they agree is too quiet in some bands. How much is missing is known: a part is added,
    since a log-mel that a VAE decoded is blurred, and not to be believed in all.

    Attributes:
        log_mel: `[batch, frame, mel]`, natural log of magnitude.
        filters: `[mel, bin]`, that made the log-mel.
        floor: Of a band's magnitude.
    """

    log_mel: Tensor
    filters: Tensor
    floor: float

    def impose(self, magnitude: Tensor, found: Tensor) -> Tensor:
        """A magnitude nearer to what the sound has, its bands nearer to their levels.

        Args:
            magnitude: `[batch, frame, bin]`, what the sound was made of.
            found: The same of the sound itself, above 0.
        """
        # Between the centres of two bands, bins belong to both.
        shares = self.filters / self.filters.sum(dim=0).clamp(min=_TINY)
        missing = self.log_mel - (found @ self.filters.T).clamp(min=self.floor).log()
        moved = found.div(magnitude.clamp(min=_TINY)).log_()
        change = ((_MISSING_SHARE * missing) @ shares).add_(moved, alpha=_FOUND_SHARE)
        return magnitude * change.clamp(-_MAX_CHANGE, _MAX_CHANGE).exp_()


def polish(
    magnitude: Tensor,
    direction: Tensor,
    grid: FrameGrid,
    steps: int,
    levels: BandLevels | None = None,
) -> Tensor:
    """Make sound of a magnitude and a phase, after steps that better the phase.

    The accelerated variant, which extrapolates what it has found in two ways (Nenov, Nguyen and
    Balazs, 2023, arXiv:2306.12504); sixteen of its steps are worth about 32 of the fast one's
    (Perraudin et al., 2013). It can be learnt through, so that a vocoder finds the phase from
    which these very steps lead to a good sound (deep Griffin-Lim iteration, Masuyama et al.,
    2019, arXiv:1903.03971).

    Args:
        magnitude: `[batch, frame, bin]`; without `levels` it is kept.
        direction: `[batch, frame, bin]`, complex of modulus 1: the phase to begin with, referred
            to the start of each window.
        grid: Of the same frames.
        steps: 0 is the inverse STFT alone.
        levels: What every fourth step brings the magnitude nearer to.

    Returns:
        `[batch, sample]`, hop samples a frame.
    """
    size = 2 * (magnitude.shape[2] - 1)
    past: tuple[Tensor, Tensor] | None = None  # the last step, and what lies beyond it
    spectrum = direction * magnitude
    for step in range(1, steps + 1):
        joined = grid.join(torch.fft.irfft(spectrum, n=size))
        if levels is not None and step % _LEVELLED_EVERY == 0:
            magnitude = levels.impose(magnitude, _magnitude(torch.fft.rfft(grid.split(joined))))
        # The paper goes beyond spectra; these are linear in the sound, which has fewer numbers.
        target = beyond = joined
        if past is not None:
            previous, carried = past
            joined = torch.lerp(carried, joined, _STRIDE)
            target = torch.lerp(previous, joined, 1 + _AHEAD)
            beyond = torch.lerp(previous, joined, 1 + _CARRIED)
        past = (joined, beyond)
        spectrum = _Rescaled.apply(torch.fft.rfft(grid.split(target)), magnitude)
    return grid.waveform_of(grid.join(torch.fft.irfft(spectrum, n=size)))


class _Rescaled(torch.autograd.Function):
    """Complex numbers brought to a magnitude, with a gradient that stays small at zero.

    Where frames cancel each other, the true gradient of the phase has no bound, and one such bin
    would drown all others: there it is that of a number of a twentieth of the bin's magnitude.
    """

    @staticmethod
    def forward(ctx: Any, target: Tensor, magnitude: Tensor) -> Tensor:
        ctx.save_for_backward(target, magnitude)
        return target * (magnitude / _magnitude(target))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        target, magnitude = ctx.saved_tensors
        (gradient,) = gradients
        found = _magnitude(target)
        direction = target / found
        along = (gradient * direction.conj()).real
        size = found.maximum(_CANCELLATION * magnitude + _TINY)
        return (gradient - along * direction) * (magnitude / size), along


def _magnitude(spectrum: Tensor) -> Tensor:
    """Above 0; `abs` takes twice the time and has no gradient at 0."""
    real, imaginary = torch.view_as_real(spectrum).unbind(dim=-1)
    power = real.square().addcmul(imaginary, imaginary)
    return power.clamp(min=_TINY**2).sqrt()
