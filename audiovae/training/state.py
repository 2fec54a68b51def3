"""The state of a training run, and the files from which a killed run continues."""

from __future__ import annotations

import copy
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audiovae.config import ModelConfig, TrainingConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.replacing import replacing

STATE_NAME = "state.pt"
CONFIG_NAME = "config.json"
_STATE_VERSION = 1
_BETAS = (0.9, 0.99)
_FLAGS = ("minutes", "seed", "steps")
"""Training settings that a command line may set, so a config file need not agree on them."""
_FREE = ("compile",)
"""Training settings that a run may go on with another value of: they change nothing learnt."""
_DAMAGE = (
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a state raises when bytes of it are not what they were."""


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: Steps taken.
        seconds: Wall time, of all the times the run was started.
        skipped: Updates left out because of their gradient.
        fraction: What is done of the run, in [0, 1].
        compiling_seconds: Of these, in which code was compiled and nothing learnt.
        steps_per_second: Since the last row of the log.
        metrics: Of the last validation.
        training_metrics: Of the last logged step.
    """

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    fraction: float = 0.0
    compiling_seconds: float = 0.0
    steps_per_second: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    training_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        """What the rest will take if it goes on like this; infinite before the first step."""
        done = max(self.fraction, 1e-9)
        worked = self.seconds - self.compiling_seconds
        return worked * (1 - self.fraction) / done if self.step else math.inf


class RunState:
    """Networks, averages of some of them, optimisers, randomness and progress."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        averaged: Collection[str],
        config: TrainingConfig,
        device: torch.device,
    ) -> None:
        """Begin a run: averages are the networks themselves, progress is none.

        Args:
            networks: By name.
            averaged: Names of those whose weights are averaged.
            config: Seed and optimiser settings.
            device: Where the networks are.
        """
        self.networks, self.device = networks, device
        self.progress = Progress()
        self.updates = dict.fromkeys(networks, 0)
        """Updates of each network so far; one that joins late warms up late."""
        self.generator = torch.Generator().manual_seed(config.seed)
        self.averages: dict[str, nn.Module] = {
            name: copy.deepcopy(networks[name]).eval().requires_grad_(False) for name in averaged
        }
        self.optimisers = {
            name: torch.optim.AdamW(
                _decay_groups(network, config.weight_decay),
                lr=config.learning_rate,
                betas=_BETAS,
                fused=True,
            )
            for name, network in networks.items()
        }

    def save(self, run_dir: Path) -> None:
        """Write everything atomically."""
        on_gpu = self.device.type == "cuda"
        state = {
            "version": _STATE_VERSION,
            "step": self.progress.step,
            "seconds": self.progress.seconds,
            "skipped": self.progress.skipped,
            "compiling_seconds": self.progress.compiling_seconds,
            "updates": self.updates,
            "networks": {n: m.state_dict() for n, m in self.networks.items()},
            "averages": {n: m.state_dict() for n, m in self.averages.items()},
            "optimisers": {n: o.state_dict() for n, o in self.optimisers.items()},
            "generator": self.generator.get_state(),
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if on_gpu else [],
        }
        with replacing(run_dir / STATE_NAME, durable=True) as draft:
            torch.save(state, draft)

    def restore(self, run_dir: Path) -> None:
        """Read what `save` wrote.

        Raises:
            CheckpointError: If there is no state, a damaged one, or one of other networks.
        """
        path = run_dir / STATE_NAME
        state = _read(path, self.device)
        try:
            for name, network in self.networks.items():
                network.load_state_dict(state["networks"][name])
                if name in self.averages:
                    self.averages[name].load_state_dict(state["averages"][name])
                self.optimisers[name].load_state_dict(state["optimisers"][name])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"{path}: expected the state of this config's networks, got another: {reason}; "
                "resume with the config the run was started with"
            ) from None
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch_random"].cpu())
        if self.device.type == "cuda" and len(state["cuda_random"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda_random"]])
        self.progress = Progress(
            state["step"],
            state["seconds"],
            state["skipped"],
            compiling_seconds=state.get("compiling_seconds", 0.0),
        )
        # A state of a version that counted steps only is of one network that had them all.
        self.updates = state.get("updates", dict.fromkeys(self.networks, state["step"]))


def save_run_config(config: ModelConfig, run_dir: Path) -> None:
    """Write the run's whole config, as a record and for `resumed_config`."""
    with replacing(run_dir / CONFIG_NAME) as draft:
        draft.write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def resumed_config(config: ModelConfig, run_dir: Path) -> ModelConfig:
    """The config with which the run in `run_dir` goes on: its own, if `config` agrees with it.

    Steps, minutes and seed are the run's; everything else must be equal, for a run that changes
    half-way is no run that anyone can repeat.

    Raises:
        ConfigError: If `config` says something else, or the run's config is damaged.
    """
    path = run_dir / CONFIG_NAME
    if not path.is_file():  # a run of a version that wrote none
        return config
    try:
        own = ModelConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: expected the config of the run, got a damaged one ({reason}); "
            "put it back, or start anew in another directory"
        ) from None
    if config.label and own.label and not config.label.classes:  # they came from the data
        config = config.model_copy(update={"label": own.label})
    free = {name: getattr(config.training, name) for name in _FREE}
    own = own.model_copy(update={"training": own.training.model_copy(update=free)})
    flags = {name: getattr(own.training, name) for name in _FLAGS}
    wanted = config.model_copy(update={"training": config.training.model_copy(update=flags)})
    difference = _first_difference(own.model_dump(mode="json"), wanted.model_dump(mode="json"))
    if difference is not None:
        name, before, now = difference
        raise ConfigError(
            f"expected the config of the run in {run_dir}, got another: {name} was {before}, now "
            f"it is {now}; resume with the config the run was started with"
        )
    return own


def _first_difference(own: Any, given: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Dotted name and both values of the first setting that differs."""
    if not (isinstance(own, dict) and isinstance(given, dict)):
        return None if own == given else (name, own, given)
    for key in own:
        inner = f"{name}.{key}" if name else key
        difference = _first_difference(own[key], given.get(key), inner)
        if difference is not None:
            return difference
    return None


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected the state of an earlier run, found none; leave out --resume "
            "to start anew"
        )
    try:
        _check_sums(path)
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        version = state["version"]
    except _DAMAGE:  # what torch says of it is advice for other files
        raise CheckpointError(
            f"{path}: expected a whole training state, got a damaged one; put back a copy of it, "
            "or start anew in another directory"
        ) from None
    if version != _STATE_VERSION:
        raise CheckpointError(
            f"{path}: expected a training state of version {_STATE_VERSION}, got {version}; "
            "resume with the audiovae that wrote it"
        )
    return state


def _check_sums(path: Path) -> None:
    """Read the file once for its checksums, which torch writes and does not look at.

    Raises:
        zipfile.BadZipFile: If one does not fit.
    """
    with zipfile.ZipFile(path) as file:
        if (name := file.testzip()) is not None:
            raise zipfile.BadZipFile(name)


def _decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave biases, norms and scales alone."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
