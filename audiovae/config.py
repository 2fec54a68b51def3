"""Configurations: typed values read from TOML, with one place for each default.

A file may say `extends = "other.toml"`; its keys then replace those of the other file,
table by table. Unknown keys are refused with the nearest known name.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from audiovae.errors import ConfigError


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that a kernel has a middle")
    return value


def _none_for_false(value: object) -> object:
    return None if value is False else value


_KernelSize = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class SpectrogramConfig(_Config):
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


class LevelConfig(_Config):
    """One level of the hierarchy; levels are listed from fine to coarse."""

    stride: int = Field(ge=1, description="downsampling from the level below")
    groups: int = Field(ge=1, description="latent groups, decoded one after the other")
    channels: int = Field(ge=1, description="latent channels of a group")
    encoder_blocks: int = Field(default=2, ge=0)
    decoder_blocks: int = Field(default=2, ge=0, description="blocks before each latent group")


class VAEConfig(_Config):
    """Size and shape of the hierarchical VAE."""

    width: int = Field(default=320, ge=8, multiple_of=4)
    expansion: int = Field(default=3, ge=1)
    kernel_size: _KernelSize = 7
    head_blocks: int = Field(default=2, ge=0, description="blocks after the finest latents")
    levels: tuple[LevelConfig, ...] = Field(
        default=(
            LevelConfig(stride=2, groups=2, channels=32, encoder_blocks=4, decoder_blocks=2),
            LevelConfig(stride=2, groups=2, channels=32, encoder_blocks=3, decoder_blocks=2),
            LevelConfig(stride=4, groups=1, channels=32, encoder_blocks=2, decoder_blocks=2),
            LevelConfig(stride=4, groups=1, channels=32, encoder_blocks=2, decoder_blocks=2),
        ),
        min_length=1,
    )

    @property
    def total_stride(self) -> int:
        """Mel frames behind one step of the coarsest level."""
        # A list, not a generator: torch.compile breaks the graph at generators.
        return math.prod([level.stride for level in self.levels])


class BottleneckConfig(_Config):
    """How features become latents: `kind` names a module of `models/bottlenecks`."""

    kind: str = "quantized"
    min_scale: float = Field(default=0.08, gt=0)
    max_scale: float = Field(default=64.0, gt=0)
    scale_table_size: int = Field(default=64, ge=2, le=256)

    @model_validator(mode="after")
    def _ordered(self) -> BottleneckConfig:
        if self.max_scale <= self.min_scale:
            raise ValueError("max_scale must be above min_scale")
        return self


class QualityConfig(_Config):
    """Rate-distortion conditioning (QARV): the range of the trade-off lambda."""

    min_lambda: float = Field(default=48.0, gt=0)
    max_lambda: float = Field(default=16_384.0, gt=0)
    embedding_channels: int = Field(default=128, ge=8)

    @model_validator(mode="after")
    def _ordered(self) -> QualityConfig:
        if self.max_lambda < self.min_lambda:
            raise ValueError("max_lambda must not be below min_lambda")
        return self


class ObjectiveConfig(_Config):
    """The ELBO: distortion weights, and beta for the classical bottlenecks."""

    l1_weight: float = Field(default=1.0, ge=0)
    l2_weight: float = Field(default=0.25, ge=0)
    beta: float = Field(default=1.0, ge=0)


class VocoderConfig(_Config):
    """Size of the vocoder and of the STFT it writes."""

    width: int = Field(default=512, ge=8)
    num_blocks: int = Field(default=8, ge=1)
    expansion: int = Field(default=3, ge=1)
    kernel_size: _KernelSize = 7


class TrainingConfig(_Config):
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


class ModelConfig(_Config):
    """Everything a training run or a checkpoint needs to rebuild its model."""

    kind: Literal["vae", "vocoder"] = "vae"
    name: str = "base"
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    vae: VAEConfig = VAEConfig()
    bottleneck: BottleneckConfig = BottleneckConfig()
    quality: Annotated[QualityConfig | None, BeforeValidator(_none_for_false)] = Field(
        default=QualityConfig(), description="false: no conditioning (TOML has no null)"
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    vocoder: VocoderConfig = VocoderConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _crops_fit(self) -> ModelConfig:
        stride = self.vae.total_stride
        if self.kind == "vae" and self.training.crop_frames % stride:
            raise ValueError(
                f"training.crop_frames must be a multiple of the product of all strides ({stride})"
            )
        return self


def load_config(path: str | Path) -> ModelConfig:
    """Read a configuration file, following `extends`.

    Raises:
        ConfigError: If the file is missing, is not TOML, or has an unknown or wrong value.
    """
    return parse_config(_read_tables(Path(path), seen=()), source=str(path))


def parse_config(tables: dict[str, Any], source: str = "config") -> ModelConfig:
    """Validate nested tables; `source` names them in the error."""
    try:
        return ModelConfig.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error)}") from None


def _read_tables(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError(f"{path}: extends itself; remove the circle")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a TOML config file, got {error.strerror or error}; "
            "see configs/ for the ones that ship"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, got a syntax error: {error}") from None
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: expected extends to be the path of a TOML file, got {parent!r}")
    return _merge(_read_tables(path.parent / parent, (*seen, resolved)), tables)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    # A misspelt key is also a missing one: the unknown name is the line that helps.
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    problem = (unknown or problems)[0]
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location)
    if problem["type"] != "extra_forbidden":
        reason = problem["msg"].removeprefix("Value error, ")
        given = problem["input"]
        got = "" if isinstance(given, dict | BaseModel) else f", got {given!r}"
        return f"{dotted}: {reason}{got}" if dotted else f"{reason}{got}"
    known = _field_names(location[:-1])
    nearest = difflib.get_close_matches(location[-1], known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known keys: {', '.join(known)}"
    return f"unknown key '{dotted}'; {hint}"


def _field_names(location: list[str]) -> list[str]:
    """Field names of the config table at `location`."""
    fields: Any = ModelConfig
    for part in location:
        if part.isdigit():
            continue
        annotation = fields.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        fields = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return sorted(fields.model_fields)
