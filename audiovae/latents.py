"""The latent value that flows between the model, the codec and the arithmetic.

Glossary. `waveform`: samples. `log_mel`: natural log of mel magnitude. `latents`: what the VAE's
top-down path is driven by. `level`: one time resolution of the hierarchy, listed from coarse to
fine. `group`: one of the latent tensors of a level, decoded one after the other. `step`: one
position in time of a level. `symbols`: the integers a bitstream holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from audiovae.errors import ModelMismatchError


@dataclass(frozen=True)
class Conditions:
    """What a batch is encoded and decoded under; one field a conditioning axis.

    Attributes:
        log_lambda: `[batch]`, natural log of the rate-distortion trade-off, or None for a model
            without quality conditioning.
    """

    log_lambda: Tensor | None = None


@dataclass(frozen=True)
class Latents:
    """Latent groups of a batch of chunks, coarse to fine, and the model they belong to.

    Attributes:
        groups: One tensor `[batch, channel, step]` a latent group, coarse to fine.
        levels: Index of the level (0 is the coarsest) of each group.
        num_frames: `[batch]`, int64; mel frames of each chunk that are signal, not padding.
        conditions: What the groups were made under.
        model_id: Identity of the weights; two different ones never mix.
    """

    groups: tuple[Tensor, ...]
    levels: tuple[int, ...]
    num_frames: Tensor
    conditions: Conditions
    model_id: str

    @property
    def batch_size(self) -> int:
        """Number of chunks."""
        return int(self.num_frames.shape[0])

    def level(self, index: int) -> tuple[Tensor, ...]:
        """The groups of one level (0 is the coarsest)."""
        return tuple(
            group for group, level in zip(self.groups, self.levels, strict=True) if level == index
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
