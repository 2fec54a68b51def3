"""Label conditioning: the network is told what class of sound it is.

The conditional VAE of Sohn et al., 2015. In training some clips are told no class (index 0), so
that the model works without one too, and the two can be compared or extrapolated (classifier-free
guidance, Ho and Salimans, 2022, arXiv:2207.12598).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovae.config import LabelConfig
from audiovae.errors import ConfigError, ShapeError
from audiovae.latents import Conditions
from audiovae.models.conditioning.base import Conditioning

NO_LABEL = 0
"""Index that stands for no class."""


class LabelConditioning(Conditioning):
    """An embedding for each class, and one for none."""

    def __init__(self, config: LabelConfig) -> None:
        """Build the embeddings of `config.classes`."""
        super().__init__()
        self.context_channels = config.embedding_channels
        self.embedding = nn.Embedding(1 + len(config.classes), config.embedding_channels)

    def forward(self, conditions: Conditions) -> Tensor:
        """`conditions.label` `[batch]` to the context `[batch, channel]`; None told is none."""
        label = conditions.label
        if label is None:
            # One item, which broadcasts: the batch size is not known here.
            label = torch.full((1,), NO_LABEL, device=self.embedding.weight.device)
        if label.ndim != 1:
            raise ShapeError(f"expected conditions.label [batch], got {list(label.shape)}")
        context: Tensor = self.embedding(label)
        return context


def label_index(config: LabelConfig | None, name: str) -> int:
    """Index of a class for `Conditions.label`.

    Raises:
        ConfigError: If the model knows no class of that name.
    """
    classes = () if config is None else config.classes
    if name not in classes:
        known = ", ".join(classes) or "none: it was trained without labels"
        raise ConfigError(f"expected a class that the model knows ({known}), got '{name}'")
    return 1 + classes.index(name)
