"""Config tables of the VAE: its shape, its bottleneck, and what it is conditioned on."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from audiovae.config_base import Config, KernelSize


class LevelConfig(Config):
    """One level of the hierarchy; levels are listed from fine to coarse."""

    stride: int = Field(ge=1, description="downsampling from the level below")
    groups: int = Field(ge=1, description="latent groups, decoded one after the other")
    channels: int = Field(ge=1, description="latent channels of a group")
    encoder_blocks: int = Field(default=2, ge=0, description="blocks after the downsampling")
    decoder_blocks: int = Field(default=2, ge=0, description="blocks before each latent group")


class VAEConfig(Config):
    """Size and shape of the hierarchical VAE."""

    width: int = Field(default=320, ge=8, multiple_of=4, description="channels of a block")
    expansion: int = Field(default=3, ge=1, description="inner channels of a block, in widths")
    kernel_size: KernelSize = Field(default=7, description="steps that a block sees")
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1,),
        min_length=1,
        description="gaps in time between a kernel's taps, of the blocks of a stack in turn",
    )
    rows: int = Field(
        default=1,
        ge=1,
        description="of mel bands that features keep apart, for convolutions over frequency too; "
        "widths and latent channels are then those of a row",
    )
    head_blocks: int = Field(default=2, ge=0, description="blocks after the finest latents")
    levels: tuple[LevelConfig, ...] = Field(
        default=(
            LevelConfig(stride=2, groups=2, channels=64, encoder_blocks=4, decoder_blocks=2),
            LevelConfig(stride=2, groups=2, channels=32, encoder_blocks=3, decoder_blocks=2),
            LevelConfig(stride=4, groups=1, channels=32, encoder_blocks=2, decoder_blocks=2),
            LevelConfig(stride=4, groups=1, channels=32, encoder_blocks=2, decoder_blocks=2),
        ),
        min_length=1,
        description="from fine to coarse",
    )

    @property
    def total_stride(self) -> int:
        """Mel frames behind one step of the coarsest level."""
        # A list, not a generator: torch.compile breaks the graph at generators.
        return math.prod([level.stride for level in self.levels])

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Mel frames behind one step of each level, coarse to fine."""
        strides = [level.stride for level in self.levels]
        fine_to_coarse = [math.prod(strides[: index + 1]) for index in range(len(strides))]
        return tuple(fine_to_coarse[::-1])

    @property
    def group_levels(self) -> tuple[int, ...]:
        """Level (0 is the coarsest) of each latent group, coarse to fine."""
        coarse_to_fine = reversed(self.levels)
        return tuple(
            index for index, level in enumerate(coarse_to_fine) for _ in range(level.groups)
        )

    @property
    def group_strides(self) -> tuple[int, ...]:
        """Mel frames behind one step of each latent group, coarse to fine."""
        return tuple(self.level_strides[level] for level in self.group_levels)


class BottleneckConfig(Config):
    """How features become latents: `kind` names a module of `models/bottlenecks`."""

    kind: str = Field(default="quantized", description="quantized, gaussian, deterministic or vq")
    min_scale: float = Field(
        default=0.08, gt=0, description="least deviation of the prior, in roundings"
    )
    max_scale: float = Field(default=64.0, gt=0, description="its largest")
    scale_table_size: int = Field(
        default=64, ge=2, le=256, description="deviations that the coder knows"
    )
    codebooks: int = Field(default=8, ge=1, description="of vq: residual stages of a group")
    codes: int = Field(default=256, ge=2, le=1 << 16, description="of vq: entries of a codebook")
    prior_rows: int = Field(
        default=32, ge=1, le=256, description="of vq: distributions that the prior chooses from"
    )
    commitment_weight: float = Field(
        default=0.25, ge=0, description="of vq: of the distance to the code"
    )
    codebook_decay: float = Field(default=0.99, gt=0, lt=1, description="of vq: of the averages")

    @model_validator(mode="after")
    def _ordered(self) -> BottleneckConfig:
        if self.max_scale <= self.min_scale:
            raise ValueError("max_scale must be above min_scale")
        return self


class QualityConfig(Config):
    """Rate-distortion conditioning (QARV): the range of the trade-off lambda."""

    min_lambda: float = Field(default=48.0, gt=0, description="of the smallest files")
    max_lambda: float = Field(default=16_384.0, gt=0, description="of the best sound")
    embedding_channels: int = Field(default=128, ge=8, description="what blocks are told of it")

    @model_validator(mode="after")
    def _ordered(self) -> QualityConfig:
        if self.max_lambda < self.min_lambda:
            raise ValueError("max_lambda must not be below min_lambda")
        return self


class TimbreConfig(Config):
    """A clip-wide code of how it sounds, beside latents that hold what is played."""

    channels: int = Field(default=64, ge=1, description="size of the code")
    width: int = Field(default=128, ge=8, multiple_of=4, description="of the code's encoder")
    blocks: int = Field(default=2, ge=0, description="of that encoder, at 43 Hz and at 11 Hz")
    context_channels: int = Field(default=128, ge=8, description="what decoder blocks are told")


class LabelConfig(Config):
    """Conditioning on a class: folder names, or what a CSV file says."""

    classes: tuple[str, ...] = Field(default=(), description="filled in from the training data")
    embedding_channels: int = Field(default=64, ge=1, description="what blocks are told of it")
    dropout: float = Field(default=0.15, ge=0, le=1, description="share of clips told no class")


class PitchConfig(Config):
    """Conditioning on the fundamental frequency of every step."""

    dropout: float = Field(default=0.15, ge=0, le=1, description="share of clips told no pitch")
