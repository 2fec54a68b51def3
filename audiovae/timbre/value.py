"""What a sound is like on average: the value that timbre is measured in and moved by.

A model with a timbre code says it in that code. A model without one has only the plain way: the
mean over time of its latents, of which the coarse levels move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from audiovae.errors import ModelMismatchError, ShapeError
from audiovae.latents import Latents
from audiovae.models.blocks import step_mask


@dataclass(frozen=True)
class Timbre:
    """A place, or a direction, in the space of timbres of one model.

    Attributes:
        code: `[channel]`, the clip-wide code, or None for a model without one.
        group_means: For each latent group, coarse to fine, its mean over time `[channel]`.
        levels: Level (0 is the coarsest) of each group.
        model_id: Identity of the weights; two different ones never mix.
    """

    code: Tensor | None
    group_means: tuple[Tensor, ...]
    levels: tuple[int, ...]
    model_id: str

    @property
    def own_levels(self) -> tuple[int, ...]:
        """The levels that move when nobody names any."""
        return timbre_levels(self.levels, has_code=self.code is not None)

    def plus(self, other: Timbre, amount: float) -> Timbre:
        """This one, and `amount` times another added."""
        other.require_model(self.model_id)
        code = None
        if self.code is not None and other.code is not None:
            code = self.code + amount * other.code
        pairs = zip(self.group_means, other.group_means, strict=True)
        means = tuple(mean + amount * step for mean, step in pairs)
        return Timbre(code, means, self.levels, self.model_id)

    def require_model(self, model_id: str) -> None:
        """Refuse a timbre of another model.

        Raises:
            ModelMismatchError: If it was measured with other weights.
        """
        if self.model_id != model_id:
            raise ModelMismatchError(
                f"expected a timbre of model {model_id}, got one of {self.model_id}; "
                "measure it again with this model"
            )


def timbre_levels(levels: Sequence[int], *, has_code: bool) -> tuple[int, ...]:
    """Levels whose mean is timbre: none where there is a code, else the coarser half."""
    return () if has_code else tuple(range(max(1, (max(levels) + 1) // 2)))


def timbre_of(latents: Latents) -> Timbre:
    """The timbre of a sound: the mean of its chunks, weighted by their frames."""
    weights = latents.num_frames / latents.num_frames.sum()  # [batch]
    code = None if latents.timbre is None else weights @ latents.timbre
    means = tuple(weights @ mean for mean in time_means(latents))
    return Timbre(code, means, latents.levels, latents.model_id)


def mean_timbre(timbres: Sequence[Timbre]) -> Timbre:
    """The mean of several, each counting once.

    Raises:
        ShapeError: If there is none.
        ModelMismatchError: If they are of different models.
    """
    if not timbres:
        raise ShapeError("expected at least one timbre, got none; give one or more sounds")
    first, *others = timbres
    total = first
    for other in others:
        total = total.plus(other, 1.0)
    return total if not others else scaled(total, 1 / len(timbres))


def scaled(timbre: Timbre, factor: float) -> Timbre:
    """Every number of a timbre times `factor`."""
    code = None if timbre.code is None else factor * timbre.code
    means = tuple(factor * mean for mean in timbre.group_means)
    return Timbre(code, means, timbre.levels, timbre.model_id)


def time_means(latents: Latents) -> tuple[Tensor, ...]:
    """Mean over the steps that cover signal of each group, `[batch, channel]` each."""
    means = []
    for group, mask in zip(latents.groups, signal_masks(latents), strict=True):
        means.append((group * mask).sum(dim=2) / mask.sum(dim=2))
    return tuple(means)


def signal_masks(latents: Latents) -> tuple[Tensor, ...]:
    """`[batch, 1, step]` of each group: 1 where a step covers signal, 0 in the padding."""
    return tuple(
        step_mask(latents.num_frames, group.shape[2], stride)
        for group, stride in zip(latents.groups, latents.strides, strict=True)
    )
