"""The training loop: one for every task.

A task says what is optimised (`updates`), the loop does the rest: optimiser and schedule, clipping
and skipping of gradients, averaging of weights, logs, validation, and a state from which a killed
run continues on the same curve.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from audiovae.config import ModelConfig, TrainingConfig
from audiovae.errors import ConfigError
from audiovae.training.logs import CsvLog
from audiovae.training.state import Progress, RunState

_LOG = logging.getLogger(__name__)
_MAX_SKIPS_IN_A_ROW = 100
_COMPILING_SECONDS = 8.0  # a step on a GPU that takes longer has compiled something


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

    config: ModelConfig
    networks: Mapping[str, nn.Module]
    """Networks by name; each has its own optimiser."""

    @property
    def averaged(self) -> Collection[str]:
        """Names of the networks that are averaged, measured and written."""
        ...

    def updates(self, generator: torch.Generator, progress: Progress) -> Iterator[Update]:
        """Losses of one step, each optimised before the next is asked for."""
        ...

    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Measure the averaged networks."""
        ...

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write the model file of the averaged networks."""
        ...


class Watcher:
    """Looks on while a run trains; commands override what they show. Silent as it is."""

    def stepped(self, progress: Progress) -> None:
        """A step was taken."""

    def validated(self, step: int, result: Validation) -> None:
        """The averaged networks were measured, and their model file written."""

    def wants_stop(self) -> bool:
        """Whether the run should save its state and return."""
        return False


def train(
    task: TrainingTask,
    run_dir: Path,
    device: torch.device,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Progress:
    """Train a task until its steps or its minutes are used up, or its watcher wants to stop.

    Args:
        task: Networks, losses and settings.
        run_dir: Where logs, state and the model file go.
        device: Where the networks are.
        resume: Continue from the state in `run_dir`.
        watcher: Is told of every step, and may stop the run.

    Raises:
        CheckpointError: If `resume` is asked for and there is no state, or one of another shape.
        ConfigError: If the training diverges.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    run = _Run(task, run_dir, device, watcher or Watcher(), resume)
    while run.goes_on():
        run.advance()
    run.finish()
    return run.state.progress


class _Run:
    """A task, everything that changes while it is trained, and where it is written."""

    def __init__(
        self,
        task: TrainingTask,
        run_dir: Path,
        device: torch.device,
        watcher: Watcher,
        resume: bool,
    ) -> None:
        self.task, self.config, self.run_dir = task, task.config.training, run_dir
        self.state = RunState(task.networks, task.averaged, self.config, device)
        self._watcher = watcher
        if resume:
            self.state.restore(run_dir)
        progress = self.state.progress
        self._log = CsvLog(run_dir / "metrics.csv", progress.step)
        self._validation_log = CsvLog(run_dir / "validation.csv", progress.step)
        limit = self.config.skip_gradient_above
        self._skipped_before = progress.skipped
        self._skips = {name: _Skips(limit, device) for name in task.networks}
        self._last_logged = (progress.step, progress.seconds)
        self._last_saved = time.monotonic()
        self._started = self._last_saved - progress.seconds
        progress.fraction = fraction_done(progress, self.config)
        if not resume:
            self._save()  # so that a run that is killed early can be resumed too

    def goes_on(self) -> bool:
        """Whether there is something left to do, and nobody wants to stop."""
        return self.state.progress.fraction < 1.0 and not self._watcher.wants_stop()

    def advance(self) -> None:
        """Take a step; log, measure and save what is due."""
        before = time.monotonic()
        metrics = self._step()
        progress, config = self.state.progress, self.config
        progress.seconds = time.monotonic() - self._started
        took = time.monotonic() - before
        if self.state.device.type == "cuda" and took > _COMPILING_SECONDS:
            progress.compiling_seconds += took
        progress.fraction = fraction_done(progress, config)
        steps, seconds = (
            progress.step - self._last_logged[0],
            progress.seconds - self._last_logged[1],
        )
        progress.steps_per_second = steps / max(seconds, 1e-9)
        if progress.step % config.log_every_steps == 0 or progress.fraction >= 1.0:
            self._write_metrics(metrics)
        self._watcher.stepped(progress)
        if progress.step % config.validate_every_steps == 0:
            self._validate()
        if time.monotonic() - self._last_saved > config.checkpoint_every_seconds:
            self._save()

    def finish(self) -> None:
        """Leave a state to continue from, and, of a run that is done, a model file."""
        progress = self.state.progress
        if progress.fraction >= 1.0 and self._validation_log.last_step < progress.step:
            self._validate()
        self._save()

    def _step(self) -> dict[str, Tensor]:
        """One step of every network; metrics are left on the device."""
        metrics: dict[str, Tensor] = {}
        for update in self.task.updates(self.state.generator, self.state.progress):
            norm = self._optimise(update)
            metrics |= update.metrics
            metrics[f"gradient_norm_{update.network}"] = norm
        self.state.progress.step += 1
        return metrics

    def _write_metrics(self, metrics: Mapping[str, Tensor]) -> None:
        progress = self.state.progress
        progress.training_metrics = {name: float(value) for name, value in metrics.items()}
        progress.skipped = self._skipped()
        times = {"seconds": progress.seconds, "steps_per_second": progress.steps_per_second}
        row = {**times, **progress.training_metrics, "skipped": progress.skipped}
        self._log.write(progress.step, row)
        self._last_logged = (progress.step, progress.seconds)

    def _validate(self) -> None:
        """Measure the averaged networks, and write the model file."""
        progress = self.state.progress
        result = self.task.validate(self.state.averages, progress.step)
        progress.metrics = result.metrics
        self.task.export(self.state.averages, progress)
        self._validation_log.write(progress.step, result.metrics)
        self._watcher.validated(progress.step, result)

    def _save(self) -> None:
        self.state.progress.skipped = self._skipped()
        self.state.save(self.run_dir)
        self._last_saved = time.monotonic()

    def _skipped(self) -> int:
        """Updates left out so far, of all networks; waits for the device."""
        step = self.state.progress.step
        return self._skipped_before + sum(one.total(step) for one in self._skips.values())

    def _optimise(self, update: Update) -> Tensor:
        """One step of one network; nothing here waits for the device."""
        network = self.task.networks[update.network]
        optimiser = self.state.optimisers[update.network]
        optimiser.zero_grad(set_to_none=True)
        update.loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.config.gradient_clip)
        count, fraction = self.state.updates[update.network], self.state.progress.fraction
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(self.config, count, fraction)
        # The fused kernels leave everything as it is where this is 1, as for a gradient scaler.
        optimiser.found_inf = self._skips[update.network].note(norm)  # type: ignore[attr-defined]
        optimiser.step()
        self.state.updates[update.network] += 1
        if update.network in self.state.averages:
            self._average(update.network)
        return norm

    @torch.no_grad()
    def _average(self, name: str) -> None:
        """Exponential moving average of the weights, its window growing with the run."""
        step = self.state.progress.step
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        source: list[Tensor] = list(self.task.networks[name].parameters())
        target: list[Tensor] = list(self.state.averages[name].parameters())
        torch._foreach_lerp_(target, source, 1.0 - decay)
        for kept, current in zip(
            self.state.averages[name].buffers(), self.task.networks[name].buffers(), strict=True
        ):
            kept.copy_(current)


class _Skips:
    """Counts a network's updates that are left out because of their gradient, on the device."""

    def __init__(self, limit: float, device: torch.device) -> None:
        self._limit = limit
        self._total = torch.zeros((), dtype=torch.long, device=device)
        self._in_a_row = torch.zeros_like(self._total)
        self._norm = torch.zeros((), device=device)

    def note(self, norm: Tensor) -> Tensor:
        """1.0 if an update with a gradient of this norm is to be left out, else 0.0."""
        bad = ~(norm < self._limit)  # also true of NaN
        self._total += bad
        self._in_a_row = (self._in_a_row + 1) * bad
        self._norm = norm
        return bad.float()

    def total(self, step: int) -> int:
        """Updates left out since the run was started; waits for the device.

        Raises:
            ConfigError: If the last ones all were.
        """
        if int(self._in_a_row) >= _MAX_SKIPS_IN_A_ROW:
            raise ConfigError(
                f"expected gradients below {self._limit}, got {int(self._in_a_row)} updates in a "
                f"row above it (norm {float(self._norm):.3g} at step {step}): the training "
                "diverged; lower training.learning_rate, or raise training.skip_gradient_above"
            )
        return int(self._total)


def learning_rate(config: TrainingConfig, updates: int, fraction: float) -> float:
    """Linear warm-up over a network's updates, then a cosine over the run's fraction."""
    warm = min(1.0, (updates + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    floor = config.final_learning_rate_ratio
    return config.learning_rate * warm * (floor + (1 - floor) * cosine)


def fraction_done(progress: Progress, config: TrainingConfig) -> float:
    """Progress in [0, 1]: by steps, or by minutes if these run out first.

    Time in which code was compiled is not progress: a schedule that went by it would be half over
    before it began.
    """
    fraction = progress.step / config.steps
    if config.minutes is not None:
        lost = progress.compiling_seconds
        left = 60 * config.minutes - lost
        fraction = max(fraction, (progress.seconds - lost) / left if left > 0 else 1.0)
    return min(fraction, 1.0)
