"""The training loop: one for every task.

A task says what is optimised (`losses`), the loop does the rest: optimiser and schedule, clipping
and skipping of gradients, averaging of weights, logs, validation, and a state from which a killed
run continues on the same curve.
"""

from __future__ import annotations

import copy
import csv
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from audiovae.config import TrainingConfig
from audiovae.errors import CheckpointError

_LOG = logging.getLogger(__name__)
_STATE_NAME = "state.pt"
_STATE_VERSION = 1


@dataclass(frozen=True)
class Validation:
    """What a task reports of the averaged weights.

    Attributes:
        metrics: Numbers for the log, by name.
        warnings: Lines a user should read (a collapsed level, say), each with its remedy.
    """

    metrics: dict[str, float]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Update:
    """One optimiser step: which network, on which loss, and what to log of it."""

    network: str
    loss: Tensor
    metrics: dict[str, Tensor]


class TrainingTask(Protocol):
    """What the loop trains."""

    networks: Mapping[str, nn.Module]
    """Networks by name; each has its own optimiser."""

    def updates(self, generator: torch.Generator) -> Iterator[Update]:
        """Losses of one step, each optimised before the next is asked for."""
        ...

    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Measure the averaged networks."""
        ...

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write the model file of the averaged networks."""
        ...


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


def train(
    task: TrainingTask,
    config: TrainingConfig,
    run_dir: Path,
    device: torch.device,
    *,
    resume: bool = False,
    report: Callable[[str], None] = _LOG.info,
) -> Progress:
    """Train a task until its steps or its minutes are used up.

    Args:
        task: Networks and losses.
        config: Optimiser, schedule and how often to log, validate and save.
        run_dir: Where logs, state and the model file go.
        device: Where the networks are.
        resume: Continue from the state in `run_dir`.
        report: Takes one line at a time for the user.

    Raises:
        CheckpointError: If `resume` is asked for and there is no state, or one of another shape.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    run = _Run(task, config, run_dir, device)
    if resume:
        run.restore()
        report(f"resumed at step {run.progress.step}")
    log = _CsvLog(run_dir / "metrics.csv", run.progress.step)
    validation_log = _CsvLog(run_dir / "validation.csv", run.progress.step)
    started = time.monotonic() - run.progress.seconds
    last_saved = time.monotonic()
    last_logged = (run.progress.step, run.progress.seconds)
    while (fraction := run.fraction_done()) < 1.0:
        metrics = run.step(fraction)
        run.progress.seconds = time.monotonic() - started
        step = run.progress.step
        if step % config.log_every_steps == 0:
            rate = (step - last_logged[0]) / max(run.progress.seconds - last_logged[1], 1e-9)
            last_logged = (step, run.progress.seconds)
            row = {name: float(value) for name, value in metrics.items()}
            log.write(step, {"seconds": run.progress.seconds, "steps_per_second": rate, **row})
            report(_line(step, run.fraction_done(), rate, run.progress.seconds, row))
        if step % config.validate_every_steps == 0:
            run.validate(validation_log, report)
        if time.monotonic() - last_saved > config.checkpoint_every_seconds:
            run.save()
            last_saved = time.monotonic()
    run.validate(validation_log, report)
    run.save()
    return run.progress


class _Run:
    """Networks, their averages and optimisers, and the state they are saved as."""

    def __init__(
        self, task: TrainingTask, config: TrainingConfig, run_dir: Path, device: torch.device
    ) -> None:
        self.task, self.config, self.run_dir, self.device = task, config, run_dir, device
        self.progress = Progress()
        self.generator = torch.Generator().manual_seed(config.seed)
        self.averages = {
            name: copy.deepcopy(network).eval().requires_grad_(False)
            for name, network in task.networks.items()
        }
        self.optimisers = {
            name: torch.optim.AdamW(
                _decay_groups(network, config.weight_decay),
                lr=config.learning_rate,
                betas=(0.9, 0.99),
                fused=True,
            )
            for name, network in task.networks.items()
        }

    def fraction_done(self) -> float:
        """Progress in [0, 1]: by steps, or by minutes if these run out first."""
        fraction = self.progress.step / self.config.steps
        if self.config.minutes is not None:
            fraction = max(fraction, self.progress.seconds / (60 * self.config.minutes))
        return fraction

    def step(self, fraction: float) -> dict[str, Tensor]:
        """Take one step of every network; metrics are left on the device."""
        rate = learning_rate(self.config, self.progress.step, fraction)
        metrics: dict[str, Tensor] = {}
        for update in self.task.updates(self.generator):
            norm = self._optimise(update, rate)
            metrics |= update.metrics
            metrics[f"gradient_norm_{update.network}"] = norm
        self.progress.step += 1
        return metrics

    def _optimise(self, update: Update, rate: float) -> Tensor:
        network, optimiser = self.task.networks[update.network], self.optimisers[update.network]
        optimiser.zero_grad(set_to_none=True)
        update.loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.config.gradient_clip)
        if not float(norm) < self.config.skip_gradient_above:  # also true of NaN
            self.progress.skipped += 1
            return norm
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        self._average(update.network)
        return norm

    @torch.no_grad()
    def _average(self, name: str) -> None:
        """Exponential moving average of the weights, its window growing with the run."""
        decay = min(self.config.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        source: list[Tensor] = list(self.task.networks[name].parameters())
        target: list[Tensor] = list(self.averages[name].parameters())
        torch._foreach_lerp_(target, source, 1.0 - decay)
        for kept, current in zip(
            self.averages[name].buffers(), self.task.networks[name].buffers(), strict=True
        ):
            kept.copy_(current)

    def validate(self, log: _CsvLog, report: Callable[[str], None]) -> None:
        """Measure the averaged networks, and write the model file."""
        result = self.task.validate(self.averages, self.progress.step)
        self.progress.metrics = result.metrics
        log.write(self.progress.step, result.metrics)
        figures = " ".join(f"{name}={value:.4g}" for name, value in result.metrics.items())
        report(f"validation step={self.progress.step} {figures}")
        for warning in result.warnings:
            report(f"warning: {warning}")
        self.task.export(self.averages, self.progress)

    def save(self) -> None:
        """Write the whole state atomically."""
        state = {
            "version": _STATE_VERSION,
            "step": self.progress.step,
            "seconds": self.progress.seconds,
            "skipped": self.progress.skipped,
            "networks": {n: m.state_dict() for n, m in self.task.networks.items()},
            "averages": {n: m.state_dict() for n, m in self.averages.items()},
            "optimisers": {n: o.state_dict() for n, o in self.optimisers.items()},
            "generator": self.generator.get_state(),
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        temporary = self.run_dir / f"{_STATE_NAME}.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.run_dir / _STATE_NAME)

    def restore(self) -> None:
        """Read the state that `save` wrote."""
        path = self.run_dir / _STATE_NAME
        if not path.is_file():
            raise CheckpointError(
                f"{path}: expected the state of an earlier run, found none; leave out --resume "
                "to start anew"
            )
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            for name, network in self.task.networks.items():
                network.load_state_dict(state["networks"][name])
                self.averages[name].load_state_dict(state["averages"][name])
                self.optimisers[name].load_state_dict(state["optimisers"][name])
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path}: expected the state of this config's networks, got another: {reason}; "
                "resume with the config the run was started with"
            ) from None
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["torch_random"].cpu())
        if state["cuda_random"]:
            torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda_random"]])
        self.progress = Progress(state["step"], state["seconds"], state["skipped"])


def learning_rate(config: TrainingConfig, step: int, fraction: float) -> float:
    """Linear warm-up over steps, then a cosine over the run's fraction."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    floor = config.final_learning_rate_ratio
    return config.learning_rate * warm * (floor + (1 - floor) * cosine)


def _decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave biases, norms and scales alone."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _line(step: int, fraction: float, rate: float, seconds: float, row: dict[str, float]) -> str:
    left = seconds * (1 - fraction) / max(fraction, 1e-9)
    figures = " ".join(f"{name}={value:.4g}" for name, value in row.items())
    return (
        f"step={step} done={100 * fraction:.1f}% steps_per_second={rate:.2f} "
        f"left={left / 60:.1f}min {figures}"
    )


class _CsvLog:
    """A CSV file that a resumed run continues: rows after its step are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self._columns: list[str] = []
        kept: list[dict[str, str]] = []
        if step and path.is_file():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self._columns = list(reader.fieldnames or [])
                kept = [row for row in reader if (row["step"] or "").isdigit()]
            kept = [row for row in kept if int(row["step"]) <= step]
        if kept:
            self._rewrite(kept)
        else:
            path.unlink(missing_ok=True)
            self._columns = []

    def write(self, step: int, row: dict[str, float]) -> None:
        """Append a row; the first row names the columns."""
        if not self._columns:
            self._columns = ["step", *row]
            self._rewrite([])
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore")
            writer.writerow({"step": step, **{k: f"{v:.6g}" for k, v in row.items()}})

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with self._path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
