"""Integer frequencies of the indices of a vq model, made once and stored with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.errors import CheckpointError
from audiovae.models.bottlenecks.quantized import FREQUENCY_BITS


@dataclass(frozen=True, eq=False)
class CodeTable:
    """Integer frequencies of code indices.

    Attributes:
        frequencies: `[group, stage, row, code]`, int32; each at least 1, a row sums to
            `2 ** FREQUENCY_BITS`.
    """

    frequencies: NDArray[np.int32]

    @classmethod
    def of_probabilities(cls, probabilities: NDArray[np.float64]) -> CodeTable:
        """One each, and the rest by probability `[group, stage, row, code]`, rounded down."""
        chances = probabilities / probabilities.sum(axis=3, keepdims=True)
        free = (1 << FREQUENCY_BITS) - chances.shape[3]
        frequencies = 1 + np.floor(free * chances).astype(np.int64)
        left = (1 << FREQUENCY_BITS) - frequencies.sum(axis=3, keepdims=True)
        likeliest = chances.argmax(axis=3)[..., None]  # takes what is left
        most = np.take_along_axis(frequencies, likeliest, 3) + left
        np.put_along_axis(frequencies, likeliest, most, 3)
        return cls(frequencies.astype(np.int32))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> CodeTable:
        """Take the table that `tensors()` gave and a model file stored.

        Raises:
            CheckpointError: If it is damaged.
        """
        stored = tensors.get("frequencies")
        if stored is None or not _is_sound(stored):
            raise CheckpointError(
                f"expected rows of frequencies that sum to 2^{FREQUENCY_BITS}, got a damaged "
                "table; copy the model file again"
            )
        return cls(stored.numpy())

    def row(self, index: int) -> NDArray[np.int32]:
        """Frequencies of the indices 0, 1, ... under one row, counted through all groups."""
        return cast(
            NDArray[np.int32], self.frequencies.reshape(-1, self.frequencies.shape[3])[index]
        )

    def lowest(self) -> NDArray[np.int64]:
        """`[row]`: indices begin with 0."""
        return np.zeros(math.prod(self.frequencies.shape[:3]), dtype=np.int64)

    def tensors(self) -> dict[str, Tensor]:
        """What a model file stores."""
        return {"frequencies": torch.from_numpy(self.frequencies)}

    @property
    def stages_and_rows(self) -> tuple[int, int]:
        """Stages of a group, and rows of a stage."""
        return self.frequencies.shape[1], self.frequencies.shape[2]


def _is_sound(frequencies: Tensor) -> bool:
    if frequencies.dtype != torch.int32 or frequencies.ndim != 4:
        return False
    whole = frequencies.sum(dim=3, dtype=torch.int64) == 1 << FREQUENCY_BITS
    return bool(whole.all() and (frequencies >= 1).all())
