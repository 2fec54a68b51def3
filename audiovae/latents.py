"""The latent value that flows between the model, the codec and the arithmetic.

Glossary. `waveform`: samples. `log_mel`: natural log of mel magnitude. `latents`: what the VAE's
top-down path is driven by. `level`: one time resolution of the hierarchy, listed from coarse to
fine. `group`: one of the latent tensors of a level, decoded one after the other. `step`: one
position in time of a level. `symbols`: the integers a bitstream holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.errors import ModelMismatchError


@dataclass(frozen=True)
class Conditions:
    """What a batch is encoded and decoded under; one field a conditioning axis.

    Attributes:
        log_lambda: `[batch]`, natural log of the rate-distortion trade-off, or None for a model
            without quality conditioning.
        timbre: `[batch, channel]`, the clip-wide timbre code that is decoded, or None: when
            encoding, each clip's own is then taken; models without such a code have none.
        label: `[batch]`, int64, 1 and up for the classes of the config, 0 for none told; None:
            none told.
        pitch: `[batch, 2, frame]`, octaves above 440 Hz and 1 where there is a pitch, 0 and 0
            where there is none or none is told; None: none told.
    """

    log_lambda: Tensor | None = None
    timbre: Tensor | None = None
    label: Tensor | None = None
    pitch: Tensor | None = None

    @classmethod
    def at_lambda(cls, log_lambda: float | None, rows: int, device: torch.device) -> Conditions:
        """A batch of which every item has the same trade-off; None: no quality conditioning."""
        if log_lambda is None:
            return cls()
        return cls(torch.full((rows,), log_lambda, device=device))

    def rows(self, indices: Sequence[int]) -> Conditions:
        """Those of some items of the batch."""
        return Conditions(*(None if one is None else one[list(indices)] for one in self.axes()))

    def axes(self) -> list[Tensor | None]:
        """Every axis, in the order of the fields."""
        return [getattr(self, axis.name) for axis in fields(self)]


@dataclass(frozen=True)
class Detail:
    """What one sound has beyond the decode of its latents (`timbre.detail` adds it again).

    Attributes:
        lacking: `[batch, mel, frame]`, nats that the decode is short of the sound, or of what a
            file would make of it.
        decoded: `[batch, mel, frame]`, of its latents.
        weight: Its share in the sound that the latents are of now, 0 to 1.
    """

    lacking: Tensor
    decoded: Tensor
    weight: float = 1.0

    def weighed(self, factor: float) -> Detail:
        """With another share; one outside 0 to 1 is brought to the nearer end."""
        return replace(self, weight=self.weight * min(1.0, max(0.0, factor)))

    def louder(self, nats: float) -> Detail:
        """Of the same sound at another level."""
        return replace(self, decoded=self.decoded + nats)

    def rows(self, indices: Sequence[int], padded_frames: int) -> Detail:
        """Of some items of the batch, cut or padded to a length."""
        lacking, decoded = (
            _of_length(one[list(indices)], padded_frames) for one in (self.lacking, self.decoded)
        )
        return replace(self, lacking=lacking, decoded=decoded)


@dataclass(frozen=True, eq=False)
class Latents:
    """Latent groups of a batch of chunks, coarse to fine, and the model they belong to.

    Attributes:
        groups: One tensor `[batch, channel, step]` a latent group, coarse to fine.
        levels: Index of the level (0 is the coarsest) of each group.
        strides: Mel frames behind one step of each group.
        num_frames: `[batch]`, int64; mel frames of each chunk that are signal, not padding.
        conditions: What the groups were made under.
        model_id: Identity of the weights; two different ones never mix.
        details: Of the sounds that these are the latents of; none for a model that neither has
            a timbre code nor makes files, whose latents are all there is of a sound.
    """

    groups: tuple[Tensor, ...]
    levels: tuple[int, ...]
    strides: tuple[int, ...]
    num_frames: Tensor
    conditions: Conditions
    model_id: str
    details: tuple[Detail, ...] = ()

    @property
    def batch_size(self) -> int:
        """Number of chunks."""
        return int(self.num_frames.shape[0])

    @property
    def timbre(self) -> Tensor | None:
        """`[batch, channel]`, the code of each chunk's timbre; None for a model without one."""
        return self.conditions.timbre

    def rows(self, indices: Sequence[int], padded_frames: int) -> Latents:
        """Those of some chunks, cut or zero-padded to a length of `padded_frames`."""
        chosen = list(indices)
        groups = tuple(
            _of_length(group[chosen], padded_frames // stride)
            for group, stride in zip(self.groups, self.strides, strict=True)
        )
        return replace(
            self,
            groups=groups,
            num_frames=self.num_frames[chosen],
            conditions=self.conditions.rows(chosen),
            details=tuple(one.rows(chosen, padded_frames) for one in self.details),
        )

    def require_model(self, model_id: str) -> None:
        """Refuse latents of another model.

        Raises:
            ModelMismatchError: If the latents were made with other weights.
        """
        if self.model_id != model_id:
            raise ModelMismatchError(
                f"expected latents of model {model_id}, got latents of {self.model_id}; "
                "encode the audio again with this model"
            )


def join_latents(parts: Sequence[Latents]) -> Latents:
    """One batch of the chunks of several, of one length and one model."""
    first = parts[0]
    for part in parts[1:]:
        part.require_model(first.model_id)
    details = []
    for same in zip(*(part.details for part in parts), strict=True):
        lacking, decoded = [one.lacking for one in same], [one.decoded for one in same]
        details.append(Detail(torch.cat(lacking), torch.cat(decoded), same[0].weight))
    conditions = []
    for axis in zip(*(part.conditions.axes() for part in parts), strict=True):
        given = [one for one in axis if one is not None]
        conditions.append(torch.cat(given) if given else None)
    return replace(
        first,
        groups=tuple(torch.cat(group) for group in zip(*(p.groups for p in parts), strict=True)),
        num_frames=torch.cat([part.num_frames for part in parts]),
        conditions=Conditions(*conditions),
        details=tuple(details),
    )


def _of_length(value: Tensor, steps: int) -> Tensor:
    """`[batch, channel, step]` cut or zero-padded to a number of steps."""
    cut = value[:, :, :steps]
    return functional.pad(cut, (0, steps - cut.shape[2]))
