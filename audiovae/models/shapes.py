"""Which log-mels the hierarchy accepts."""

from __future__ import annotations

from torch import Tensor

from audiovae.config import ModelConfig
from audiovae.errors import ShapeError


def check_log_mel(log_mel: Tensor, config: ModelConfig) -> None:
    """Refuse what is not `[batch, mel, frame]` of a length that the strides divide.

    Raises:
        ShapeError: If it is of another shape.
    """
    num_mels = config.spectrogram.num_mels
    if log_mel.ndim != 3 or log_mel.shape[1] != num_mels:
        wanted = f"[batch, {num_mels}, frame]"
        raise ShapeError(f"expected log_mel {wanted}, got {list(log_mel.shape)}")
    check_frames(log_mel.shape[2], config)


def check_frames(frames: int, config: ModelConfig) -> None:
    """Refuse a length that the strides do not divide.

    Raises:
        ShapeError: If it is such a length.
    """
    stride = config.vae.total_stride
    if frames % stride or frames == 0:
        raise ShapeError(
            f"expected a positive multiple of {stride} frames, got {frames}; "
            "pad the log-mel and say how many frames are signal in num_frames"
        )
