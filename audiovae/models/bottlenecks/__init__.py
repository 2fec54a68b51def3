"""How features become latents: one module a kind, found by its name.

A bottleneck turns the posterior's and the prior's raw features of one latent group into a latent
and its cost in bits. A new kind is one module here with a class `Bottleneck`; if it can be written
to a file, it has the functions `table_of` and `table_from` as well (`SymbolTable`), and the codec
knows its symbols (`codec/group_coders.py`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.config import BottleneckConfig
from audiovae.errors import ConfigError


@dataclass(frozen=True)
class LatentSample:
    """One latent group.

    Attributes:
        latent: `[batch, channel, step]`.
        bits: `[batch, unit, step]`, the KL term of the ELBO in bits; a unit is a latent channel,
            or whatever a kind codes alone.
        penalty: `[batch, 1, step]`, what training adds to the loss, in nats; None for nothing.
    """

    latent: Tensor
    bits: Tensor
    penalty: Tensor | None = None


class BottleneckKind(Protocol):
    """What the hierarchy asks of the bottleneck of one latent group.

    One that has weights or learns from what passes through it is an `nn.Module`.
    """

    posterior_channels: int
    """Channels of the posterior's raw features."""
    prior_channels: int
    """Channels of the prior's raw features."""
    has_rate: bool
    """Whether bits mean something: False for latents without a distribution."""

    def draw(
        self,
        posterior: Tensor,
        prior: Tensor,
        mask: Tensor,
        generator: torch.Generator | None,
    ) -> LatentSample:
        """Draw from the posterior as training needs it (with gradients).

        `mask` `[batch, 1, step]` is 0 at steps without signal: a kind that learns from what passes
        through it leaves them out.
        """
        ...

    def settle(self, posterior: Tensor, prior: Tensor) -> LatentSample:
        """Choose the latent without noise, as encoding needs it."""
        ...

    def generate(
        self, prior: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draw from the prior; `temperature` scales its deviation, and 0 is its middle."""
        ...


class SymbolTable(Protocol):
    """Integer frequencies that symbols are coded with; made once and stored with the model."""

    def row(self, index: int) -> NDArray[np.int32]:
        """Frequencies of one row's symbols, ascending from its lowest; they sum to 2^24."""
        ...

    def lowest(self) -> NDArray[np.int64]:
        """`[row]`: the smallest symbol of each row."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a model file stores."""
        ...

    def __hash__(self) -> int: ...


def bottleneck_kinds() -> list[str]:
    """Names that `kind` can take."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def makes_files(config: BottleneckConfig) -> bool:
    """Whether models with this bottleneck make compressed files."""
    return hasattr(_module_of(config), "table_of")


def build_bottleneck(config: BottleneckConfig, channels: int) -> BottleneckKind:
    """Make the bottleneck that `config.kind` names, for a group of so many latent channels.

    Raises:
        ConfigError: If no module of that name exists.
    """
    return cast(BottleneckKind, _module_of(config).Bottleneck(config, channels))


def build_table(config: BottleneckConfig, groups: Sequence[BottleneckKind]) -> SymbolTable | None:
    """The table of a model with these bottlenecks; None for a kind that makes no files."""
    make = getattr(_module_of(config), "table_of", None)
    return None if make is None else cast(SymbolTable, make(config, groups))


def read_table(config: BottleneckConfig, tensors: Mapping[str, Tensor]) -> SymbolTable | None:
    """The table that `SymbolTable.tensors` gave and a model file stored.

    Raises:
        CheckpointError: If it is damaged.
    """
    read = getattr(_module_of(config), "table_from", None)
    return None if read is None else cast(SymbolTable, read(tensors))


def _module_of(config: BottleneckConfig) -> ModuleType:
    if config.kind not in bottleneck_kinds():
        raise ConfigError(
            f"expected bottleneck.kind to be one of {', '.join(bottleneck_kinds())}, "
            f"got '{config.kind}'"
        )
    return importlib.import_module(f"{__name__}.{config.kind}")


def gaussian_noise_like(reference: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the reference's shape, device and type."""
    return torch.randn(
        reference.shape, generator=generator, device=reference.device, dtype=reference.dtype
    )
