"""Which precision a network is trained in."""

from __future__ import annotations

import torch

from audiovae.config import TrainingConfig


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """The context of a forward pass: bfloat16 if asked for, by default on a GPU only.

    A CPU without bfloat16 instructions emulates them, at a small multiple of float32's time.
    """
    wanted = config.precision == "bfloat16"
    by_default = config.precision == "auto" and device.type != "cpu"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted or by_default)
