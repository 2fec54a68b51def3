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

    sample_rate: int = Field(default=44_100, ge=1, description="Hz")
    window_samples: int = Field(default=2048, ge=2, multiple_of=2, description="length of a frame")
    hop_samples: int = Field(default=512, ge=1, description="from one frame to the next")
    num_mels: int = Field(default=128, ge=1, description="bands")
    min_hz: float = Field(default=0.0, ge=0, description="where the lowest band begins")
    max_hz: float = Field(default=22_050.0, description="where the highest band ends")
    floor: float = Field(
        default=1e-5, gt=0, description="the least magnitude that is told from silence"
    )

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

    phrases: int = Field(default=240, ge=2, description="to learn from")
    players: int = Field(default=32, ge=2, description="instruments that play each phrase")
    made_up_instruments: int = Field(default=200, ge=1, description="of the programs, beside them")
    electronic_instruments: int = Field(default=100, ge=0, description="of the synthesizer")
    frames: int = Field(default=512, ge=64, description="length of a phrase")
    validation_phrases: int = Field(default=6, ge=2, description="held back")
    validation_players: int = Field(
        default=6, ge=2, description="of those: programs, and as many instruments never heard"
    )


class ObjectiveConfig(Config):
    """The ELBO: distortion weights, and beta for the classical bottlenecks."""

    l1_weight: float = Field(default=1.0, ge=0, description="of the log-mel's absolute error")
    l2_weight: float = Field(default=0.25, ge=0, description="of its squared error")
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

    width: int = Field(default=512, ge=8, description="channels of a block")
    num_blocks: int = Field(default=8, ge=1, description="one after the other")
    expansion: int = Field(default=3, ge=1, description="inner channels of a block, in widths")
    kernel_size: KernelSize = Field(default=7, description="frames that a block sees")


class DiscriminatorsConfig(Config):
    """Sizes of the discriminators, which dominate the time of an adversarial step."""

    periods: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(2, 3, 5, 7, 11), description="samples; one discriminator each, as of the windows"
    )
    period_channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 64, 128, 256, 256), min_length=1, description="layer by layer"
    )
    stft_windows: tuple[Annotated[int, Field(ge=16, multiple_of=4)], ...] = Field(
        default=(2048, 1024, 512), description="samples"
    )
    stft_channels: int = Field(default=32, ge=1, description="of every layer")
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
    hinge_weight: float = Field(default=0.5, ge=0, description="of the discriminators' scores")
    feature_weight: float = Field(default=1.0, ge=0, description="of what their layers hear")
    copy_share: float = Field(
        default=0.25, ge=0, le=1, description="items sounded from their true log-mel"
    )
    anchor_weight: float = Field(
        default=1.0, ge=0, description="of the distortion of the standardised log-mel"
    )


class TrainingConfig(Config):
    """What the loop needs to know besides the model and the objective."""

    steps: int = Field(default=60_000, ge=1, description="length of the run, unless minutes end it")
    minutes: float | None = Field(default=None, gt=0, description="time box; the schedule fits it")
    batch_size: int = Field(default=64, ge=1, description="crops in a step")
    crop_frames: int = Field(default=256, ge=8, description="mel frames of a crop")
    learning_rate: float = Field(default=4e-4, gt=0, description="its peak, after the warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="of matrices, not of vectors")
    warmup_steps: int = Field(default=500, ge=0, description="in which it rises")
    final_learning_rate_ratio: float = Field(
        default=0.02, ge=0, le=1, description="of the peak, where the run ends"
    )
    gradient_clip: float = Field(default=2.0, gt=0, description="largest norm of a step's gradient")
    skip_gradient_above: float = Field(
        default=100.0, gt=0, description="norm of which a step is left out"
    )
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="of the averaged weights, which are the ones kept"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    compile: bool = Field(default=True, description="compile the network on a GPU")
    seed: int = Field(default=0, description="of weights, crops and noise")
    log_every_steps: int = Field(default=50, ge=1, description="rows of metrics.csv")
    validate_every_steps: int = Field(default=1000, ge=1, description="writes the model file too")
    checkpoint_every_seconds: float = Field(default=120.0, gt=0, description="for --resume")


class ModelConfig(Config):
    """Everything a training run or a checkpoint needs to rebuild its model."""

    kind: Literal["vae", "vocoder", "adversarial", "timbre"] = Field(
        default="vae", description="what is trained"
    )
    name: str = Field(default="base", description="what `audiovae info` calls it")
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
