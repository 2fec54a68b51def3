"""`audiovae.training.loop` and `state`, on a task that takes no time."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audiovae.config import ModelConfig, TrainingConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.training.loop import Update, Validation, Watcher, fraction_done, learning_rate, train
from audiovae.training.state import (
    Progress,
    RunState,
    resumed_config,
    save_run_config,
)
from tests.tones import tiny_config

CPU = torch.device("cpu")


class LineTask:
    """Fits a line to noisy points; `poison` maps a step to what its loss is multiplied by."""

    def __init__(self, poison: Mapping[int, float] | None = None, **training: object) -> None:
        torch.manual_seed(0)
        settings: dict[str, object] = {
            "steps": 60,
            "learning_rate": 0.05,
            "log_every_steps": 1,
            "validate_every_steps": 20,
            "warmup_steps": 5,
            **training,
        }
        self.config = tiny_config(training=settings)
        self.line = nn.Linear(3, 1)
        self.networks: Mapping[str, nn.Module] = {"line": self.line}
        self.averaged = ("line",)
        self.validated: list[int] = []
        self.exported: list[int] = []
        self._poison = poison or {}
        self._step = 0

    def updates(self, generator: torch.Generator, progress: Progress) -> Iterator[Update]:
        points = torch.randn(32, 3, generator=generator)
        wanted = points.sum(dim=1, keepdim=True) + 0.1 * torch.randn(32, 1)  # the global generator
        loss = (self.line(points) - wanted).square().mean()
        self._step += 1
        yield Update("line", loss * self._poison.get(self._step, 1.0), {"loss": loss.detach()})

    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        self.validated.append(step)
        weight = averaged["line"].get_parameter("weight")
        return Validation({"error": float((weight - 1).abs().mean())}, ["mind the gap"])

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        self.exported.append(progress.step)


class StopAt(Watcher):
    """Stops after a step, and remembers what it saw."""

    def __init__(self, step: int) -> None:
        self.step, self.last, self.lines = step, 0, [""]

    def stepped(self, progress: Progress) -> None:
        self.last = progress.step

    def validated(self, step: int, result: Validation) -> None:
        self.lines += result.warnings

    def wants_stop(self) -> bool:
        return self.last >= self.step


def losses(run_dir: Path) -> list[tuple[str, str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return [(r["step"], r["loss"], r["gradient_norm_line"]) for r in csv.DictReader(file)]


def weights(task: LineTask) -> Tensor:
    return torch.cat([p.detach().flatten() for p in task.line.parameters()])


def test_it_learns_logs_measures_and_exports(tmp_path: Path) -> None:
    task = LineTask()
    progress = train(task, tmp_path, CPU)
    rows = losses(tmp_path)
    assert [int(row[0]) for row in rows] == list(range(1, 61))
    assert float(rows[-1][1]) < 0.1 * float(rows[0][1])
    assert task.validated == task.exported == [20, 40, 60]
    assert (progress.step, progress.fraction, progress.skipped) == (60, 1.0, 0)
    assert progress.metrics["error"] < 0.5
    assert progress.seconds_left == 0.0
    assert math.isinf(Progress().seconds_left)


@pytest.mark.parametrize("stop", [1, 19, 20, 33])
def test_a_stopped_run_continues_on_the_same_curve(tmp_path: Path, stop: int) -> None:
    whole = LineTask()
    train(whole, tmp_path / "whole", CPU)
    first = train(LineTask(), tmp_path / "cut", CPU, watcher=StopAt(stop))
    assert first.step == stop
    torch.manual_seed(99)  # the state brings its own
    resumed = LineTask(seed=5)
    progress = train(resumed, tmp_path / "cut", CPU, resume=True)
    assert progress.step == 60
    assert progress.seconds >= first.seconds
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert torch.equal(weights(resumed), weights(whole))
    for name in ("validation.csv",):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_rows_after_the_last_saved_state_are_written_again(tmp_path: Path) -> None:
    """As a kill leaves it: the log is ahead of the state."""
    train(LineTask(), tmp_path, CPU, watcher=StopAt(25))
    state = (tmp_path / "state.pt").read_bytes()
    train(LineTask(), tmp_path, CPU, resume=True, watcher=StopAt(45))
    (tmp_path / "state.pt").write_bytes(state)
    train(LineTask(), tmp_path, CPU, resume=True)
    assert [int(row[0]) for row in losses(tmp_path)] == list(range(1, 61))


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    train(LineTask(), tmp_path, CPU)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.csv")}
    again = LineTask()
    assert train(again, tmp_path, CPU, resume=True).step == 60
    assert again.validated == []
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.csv")} == before
    assert train(LineTask(steps=70), tmp_path, CPU, resume=True).step == 70


def test_the_time_box_holds(tmp_path: Path) -> None:
    progress = train(LineTask(steps=10**6, minutes=0.01), tmp_path, CPU)
    assert 0.6 <= progress.seconds < 60
    assert progress.fraction == 1.0
    resumed = train(LineTask(steps=10**6, minutes=0.01), tmp_path, CPU, resume=True)
    assert resumed.step == progress.step


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e6])
def test_a_bad_gradient_is_skipped_and_counted(tmp_path: Path, poison: float) -> None:
    task = LineTask(poison={30: poison, 31: poison}, skip_gradient_above=100.0)
    progress = train(task, tmp_path, CPU)
    assert progress.skipped == 2
    assert torch.isfinite(weights(task)).all()
    rows = losses(tmp_path)
    assert float(rows[-1][1]) < 0.1 * float(rows[0][1])
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["skipped"] for row in csv.DictReader(file)][28:31] == ["0", "1", "2"]


def test_time_in_which_code_is_compiled_is_no_progress() -> None:
    config = TrainingConfig(minutes=2, steps=1000)
    assert fraction_done(Progress(step=1, seconds=60), config) == pytest.approx(0.5)
    compiled = Progress(step=1, seconds=60, compiling_seconds=58)
    assert fraction_done(compiled, config) == pytest.approx(2 / 62)
    assert fraction_done(replace(compiled, seconds=120), config) == 1.0
    assert fraction_done(Progress(step=1, seconds=130, compiling_seconds=129), config) == 1.0
    assert replace(compiled, fraction=0.5).seconds_left == pytest.approx(2)


def test_a_run_that_only_skips_ends_with_a_remedy(tmp_path: Path) -> None:
    task = LineTask(poison=dict.fromkeys(range(1000), math.nan), steps=1000)
    with pytest.raises(ConfigError, match=r"diverged; lower training\.learning_rate"):
        train(task, tmp_path, CPU)


def test_a_watcher_hears_of_steps_and_warnings(tmp_path: Path) -> None:
    watcher = StopAt(10**9)
    train(LineTask(), tmp_path, CPU, watcher=watcher)
    assert watcher.last == 60
    assert watcher.lines[1:] == ["mind the gap"] * 3


def test_averages_follow_the_weights_slowly(tmp_path: Path) -> None:
    task = LineTask(ema_decay=0.9)
    state = RunState(task.networks, task.averaged, task.config.training, CPU)
    assert all(not p.requires_grad for p in state.averages["line"].parameters())
    train(task, tmp_path, CPU)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    average, weight = (saved[kind]["line"]["weight"] for kind in ("averages", "networks"))
    assert not torch.equal(average, weight)
    torch.testing.assert_close(average, weight, rtol=0, atol=0.1)


def test_warm_up_then_cosine() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=10, final_learning_rate_ratio=0.1)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 500, 0.5) == pytest.approx(0.55)
    assert learning_rate(config, 500, 1.0) == pytest.approx(0.1)


def test_the_state_is_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(LineTask(), tmp_path, CPU, watcher=StopAt(10))
    before = (tmp_path / "state.pt").read_bytes()

    def fail(_state: object, path: Path) -> None:
        path.write_bytes(b"half a state")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        train(LineTask(), tmp_path, CPU, resume=True)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


def problem_of_resuming(task: LineTask, run_dir: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        train(task, run_dir, CPU, resume=True)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_resuming_nothing_or_something_else_is_one_line(tmp_path: Path) -> None:
    assert "found none" in problem_of_resuming(LineTask(), tmp_path)
    train(LineTask(), tmp_path, CPU, watcher=StopAt(3))
    other = LineTask()
    other.line = nn.Linear(5, 1)
    other.networks = {"line": other.line}
    assert "size mismatch" in problem_of_resuming(other, tmp_path)
    whole = (tmp_path / "state.pt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no state at all"):
        (tmp_path / "state.pt").write_bytes(damaged)
        problem = problem_of_resuming(LineTask(), tmp_path)
        assert "got a damaged one; put back a copy of it" in problem  # nothing of torch's own
    torch.save({"version": 2}, tmp_path / "state.pt")
    assert "version 1, got 2" in problem_of_resuming(LineTask(), tmp_path)


def test_no_number_of_a_state_may_have_rotted(tmp_path: Path) -> None:
    train(LineTask(), tmp_path, CPU, watcher=StopAt(3))
    path = tmp_path / "state.pt"
    whole = path.read_bytes()
    weight = torch.load(path, weights_only=True)["networks"]["line"]["weight"].numpy().tobytes()
    place = whole.index(weight)
    path.write_bytes(whole[:place] + bytes(4) + whole[place + 4 :])
    assert "expected a whole training state" in problem_of_resuming(LineTask(), tmp_path)


def test_a_state_that_rotted_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    task = LineTask()
    train(task, tmp_path, CPU, watcher=StopAt(3))
    path = tmp_path / "state.pt"
    whole, learnt = path.read_bytes(), weights(task)
    for place in range(0, len(whole), max(len(whole) // 200, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        state = RunState(LineTask().networks, ("line",), task.config.training, CPU)
        try:
            state.restore(tmp_path)
        except CheckpointError:
            continue
        restored = torch.cat([p.detach().flatten() for p in state.networks["line"].parameters()])
        assert torch.equal(restored, learnt)  # a byte that pads or names, and means nothing


def test_a_run_goes_on_with_its_own_config(tmp_path: Path) -> None:
    own = tiny_config(training={"minutes": 3.0, "seed": 7})
    save_run_config(own, tmp_path)
    assert resumed_config(tiny_config(), tmp_path) == own


def test_another_config_is_refused_by_the_first_key_that_differs(tmp_path: Path) -> None:
    save_run_config(tiny_config(), tmp_path)
    for tables, name in (
        ({"training": {"learning_rate": 0.5}}, "training.learning_rate was 0.004, now it is 0.5"),
        ({"quality": False}, "quality was"),
        ({"vae": ModelConfig().vae.model_dump()}, "vae.width was 16, now it is 320"),
        ({"kind": "vocoder"}, "kind was vae, now it is vocoder"),
    ):
        with pytest.raises(ConfigError, match="resume with the config") as caught:
            resumed_config(tiny_config(**tables), tmp_path)
        assert name in str(caught.value)


def test_a_run_without_a_config_file_takes_the_given_one(tmp_path: Path) -> None:
    assert resumed_config(tiny_config(), tmp_path) == tiny_config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        resumed_config(tiny_config(), tmp_path)
