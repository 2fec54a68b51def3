"""Which precision a network is trained in."""

from __future__ import annotations

import torch

from audiovae.config import TrainingConfig
from audiovae.models.fused_vocoder import fast_dtype


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """The context of a forward pass: bfloat16 if asked for, by default on a GPU only.

    A device without instructions for it computes in float32 all the same: emulating bfloat16 took
    seven times as long on a CPU.
    """
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and device.type != "cpu")
    is_fast = fast_dtype(device) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and is_fast)
