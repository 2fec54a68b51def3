"""Configurations: typed values read from TOML, with one place for each default.

A file may say `extends = "other.toml"`; its keys then replace those of the other file,
table by table. Unknown keys are refused with the nearest known name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from audiovae.config_base import Config, KernelSize, none_for_false
from audiovae.config_reading import first_problem, read_tables, with_settings
from audiovae.config_vae import (
    BottleneckConfig,
    LabelConfig,
    LevelConfig,
    PitchConfig,
    QualityConfig,
    TimbreConfig,
    VAEConfig,
)
from audiovae.errors import ConfigError

__all__ = [
    "AdversarialConfig",
    "BottleneckConfig",
    "DiscriminatorsConfig",
    "LabelConfig",
    "LevelConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PairsConfig",
    "PitchConfig",
    "QualityConfig",
    "SpectrogramConfig",
    "TimbreConfig",
    "TrainingConfig",
    "VAEConfig",
    "VocoderConfig",
    "load_config",
    "parse_config",
]


class SpectrogramConfig(Config):
    """The log-mel definition: that of the public BigVGAN-v2 44 kHz vocoders."""

    sample_rate: int = Field(default=44_100, ge=1)
    window_samples: int = Field(default=2048, ge=2, multiple_of=2)
    hop_samples: int = Field(default=512, ge=1)
    num_mels: int = Field(default=128, ge=1)
    min_hz: float = Field(default=0.0, ge=0)
    max_hz: float = 22_050.0
    floor: float = Field(default=1e-5, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> SpectrogramConfig:
        if self.window_samples % self.hop_samples or self.hop_samples % 2:
            raise ValueError("hop_samples must be even and divide window_samples")
        if not self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise ValueError("max_hz must lie above min_hz and not above half the sample_rate")
        return self

    @property
    def num_bins(self) -> int:
        """Bins of the one-sided spectrum."""
        return self.window_samples // 2 + 1

    @property
    def frames_per_second(self) -> float:
        """Mel frames in a second of audio."""
        return self.sample_rate / self.hop_samples

    @property
    def log_floor(self) -> float:
        """Value of a log-mel cell of digital silence."""
        return math.log(self.floor)


class PairsConfig(Config):
    """What is played to learn timbre from, and how much of it."""

    phrases: int = Field(default=240, ge=2)
    players: int = Field(default=32, ge=2, description="instruments that play each phrase")
    made_up_instruments: int = Field(default=200, ge=1, description="of the programs, beside them")
    electronic_instruments: int = Field(default=100, ge=0, description="of the synthesizer")
    frames: int = Field(default=512, ge=64, description="length of a phrase")
    validation_phrases: int = Field(default=6, ge=2)
    validation_players: int = Field(default=6, ge=2)


class ObjectiveConfig(Config):
    """The ELBO: distortion weights, and beta for the classical bottlenecks."""

    l1_weight: float = Field(default=1.0, ge=0)
    l2_weight: float = Field(default=0.25, ge=0)
    energy_weight: float = Field(default=0.5, ge=0, description="of patches: keeps the loudness")
    statistics_weight: float = Field(
        default=0.0, ge=0, description="of each band's mean and spread over time: keeps the timbre"
    )
    beta: float = Field(default=1.0, ge=0, description="weight of the rate, without [quality]")
    beta_warmup: float = Field(
        default=0.0, ge=0, le=1, description="share of the run over which beta rises from 0"
    )

    def at(self, fraction: float) -> ObjectiveConfig:
        """The objective when this fraction of the run is done (arXiv:1602.02282)."""
        if fraction >= self.beta_warmup:
            return self
        return self.model_copy(update={"beta": self.beta * fraction / self.beta_warmup})


class VocoderConfig(Config):
    """Size of the vocoder and of the STFT it writes."""

    width: int = Field(default=512, ge=8)
    num_blocks: int = Field(default=8, ge=1)
    expansion: int = Field(default=3, ge=1)
    kernel_size: KernelSize = 7


class DiscriminatorsConfig(Config):
    """Sizes of the discriminators, which dominate the time of an adversarial step."""

    periods: tuple[Annotated[int, Field(ge=1)], ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 64, 128, 256, 256), min_length=1
    )
    stft_windows: tuple[Annotated[int, Field(ge=16, multiple_of=4)], ...] = (2048, 1024, 512)
    stft_channels: int = Field(default=32, ge=1)
    band_edges: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.1, 0.25, 0.5, 0.75), description="as shares of half the sample rate"
    )
    crop_samples: int = Field(
        default=16_384, ge=2048, description="what they see of each item of a batch"
    )


class AdversarialConfig(Config):
    """When the discriminators join, and how hard they pull.

    A weight is the size of a loss's gradient at the vocoder's STFT, in that of the reconstruction.
    """

    start_fraction: float = Field(
        default=0.12, ge=0, le=1, description="of the run; 1: no discriminators at all"
    )
    hinge_weight: float = Field(default=0.5, ge=0)
    feature_weight: float = Field(default=1.0, ge=0)
    copy_share: float = Field(
        default=0.25, ge=0, le=1, description="items sounded from their true log-mel"
    )
    anchor_weight: float = Field(
        default=1.0, ge=0, description="of the distortion of the standardised log-mel"
    )


class TrainingConfig(Config):
    """What the loop needs to know besides the model and the objective."""

    steps: int = Field(default=60_000, ge=1)
    minutes: float | None = Field(default=None, gt=0, description="time box; the schedule fits it")
    batch_size: int = Field(default=64, ge=1)
    crop_frames: int = Field(default=256, ge=8)
    learning_rate: float = Field(default=4e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=500, ge=0)
    final_learning_rate_ratio: float = Field(default=0.02, ge=0, le=1)
    gradient_clip: float = Field(default=2.0, gt=0)
    skip_gradient_above: float = Field(default=100.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    compile: bool = Field(default=True, description="compile the network on a GPU")
    seed: int = 0
    log_every_steps: int = Field(default=50, ge=1)
    validate_every_steps: int = Field(default=1000, ge=1)
    checkpoint_every_seconds: float = Field(default=120.0, gt=0)


class ModelConfig(Config):
    """Everything a training run or a checkpoint needs to rebuild its model."""

    kind: Literal["vae", "vocoder", "adversarial", "timbre"] = "vae"
    name: str = "base"
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    vae: VAEConfig = VAEConfig()
    bottleneck: BottleneckConfig = BottleneckConfig()
    quality: Annotated[QualityConfig | None, BeforeValidator(none_for_false)] = Field(
        default=QualityConfig(), description="false: no conditioning (TOML has no null)"
    )
    timbre: Annotated[TimbreConfig | None, BeforeValidator(none_for_false)] = Field(
        default=None, description="none: a model without a timbre code"
    )
    label: Annotated[LabelConfig | None, BeforeValidator(none_for_false)] = Field(
        default=None, description="none: a model that is told no class"
    )
    pitch: Annotated[PitchConfig | None, BeforeValidator(none_for_false)] = Field(
        default=None, description="none: a model that is told no pitch"
    )
    pairs: PairsConfig = PairsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    vocoder: VocoderConfig = VocoderConfig()
    discriminators: DiscriminatorsConfig = DiscriminatorsConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    training: TrainingConfig = TrainingConfig()

    @property
    def level_names(self) -> tuple[str, ...]:
        """Of the levels of latents in logs, coarse to fine: their rates in Hz."""
        rate = self.spectrogram.frames_per_second
        return tuple(f"{rate / stride:.1f}Hz" for stride in self.vae.level_strides)

    @model_validator(mode="after")
    def _crops_fit(self) -> ModelConfig:
        stride = self.vae.total_stride
        if self.kind != "vocoder" and self.training.crop_frames % stride:
            raise ValueError(
                f"training.crop_frames must be a multiple of the product of all strides ({stride})"
            )
        return self

    @model_validator(mode="after")
    def _one_trade_off(self) -> ModelConfig:
        if self.quality is not None and (self.objective.beta, self.objective.beta_warmup) != (1, 0):
            raise ValueError(
                "a [quality] table makes lambda the weight of the rate: objective.beta must be 1 "
                "and beta_warmup 0, or set quality = false"
            )
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> ModelConfig:
        if self.spectrogram.num_mels % self.vae.rows:
            raise ValueError(
                f"vae.rows must divide spectrogram.num_mels ({self.spectrogram.num_mels})"
            )
        if self.pitch is not None and self.vae.rows > 1:
            raise ValueError("a [pitch] table needs vae.rows = 1: a pitch belongs to no row")
        return self

    @model_validator(mode="after")
    def _timbre_fits(self) -> ModelConfig:
        if (self.timbre is not None) != (self.kind == "timbre"):
            raise ValueError('kind "timbre" and a [timbre] table need each other')
        if self.timbre is not None and self.vae.total_stride % 8:
            raise ValueError("with a [timbre] table the product of all strides must be 8, 16, ...")
        if self.timbre is not None and not self.vae.head_blocks:
            raise ValueError("a [timbre] table needs vae.head_blocks: they are what meets the code")
        if self.timbre is not None and self.bottleneck.kind in ("quantized", "vq"):
            raise ValueError(
                'with a [timbre] table bottleneck.kind must be neither "quantized" nor "vq": '
                "a compressed file has no place for the code yet"
            )
        return self


def load_config(path: str | Path, settings: Sequence[str] = ()) -> ModelConfig:
    """Read a configuration file, following `extends`.

    Args:
        path: The file.
        settings: What to change in it, `table.key=value` each.

    Raises:
        ConfigError: If the file is missing, is not TOML, or has an unknown or wrong value.
    """
    tables = with_settings(read_tables(Path(path)), settings)
    return parse_config(tables, source=str(path))


def parse_config(tables: dict[str, Any], source: str = "config") -> ModelConfig:
    """Validate nested tables; `source` names them in the error."""
    try:
        return ModelConfig.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error, ModelConfig)}") from None
