"""Compilation of what a training step runs again and again in one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from audiovae.config import TrainingConfig

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def forget_compiled(device: torch.device) -> None:
    """Drop what an earlier stage of this process compiled: no later one can use it.

    The layers of each new set of discriminators count as new code to the compiler, which gives up
    after a few of them.
    """
    if device.type == "cuda":
        torch.compiler.reset()


def compiled(
    function: Callable[_Arguments, _Result], config: TrainingConfig, device: torch.device
) -> Callable[_Arguments, _Result]:
    """The function as one graph on a GPU, if the config wants it; as it is elsewhere.

    A graph that breaks, or that is made anew for every shape, is refused rather than slow.
    """
    if not config.compile or device.type != "cuda":
        return function
    return torch.compile(function, fullgraph=True, dynamic=False)
