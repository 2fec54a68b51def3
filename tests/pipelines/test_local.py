from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from audiovae.commands import UsageProblem
from pipelines.runner import local
from pipelines.runner.local import LocalRunner, available_cores, default_workers, resolve_device
from pipelines.runner.units import Outcome, Pack, Unit


class Barrier:
    """A worker whose units end only once `count` of them run at the same time."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def perform(self, unit: Unit) -> Outcome:
        self._barrier.wait(timeout=10)
        return Outcome(unit)


def test_units_run_at_the_same_time_and_all_come_back() -> None:
    worker: Any = Barrier(3)
    with LocalRunner(worker, 3) as runner:
        assert runner.capacity == 3
        for number in range(6):
            runner.submit(Pack(number, ()))
        outcomes = [runner.next_outcome(10.0) for _ in range(6)]
    assert sorted(o.unit.number for o in outcomes if o is not None) == list(range(6))


def test_waiting_has_an_end() -> None:
    worker: Any = Barrier(1)
    with LocalRunner(worker, 1) as runner:
        started = time.monotonic()
        assert runner.next_outcome(0.05) is None
        assert time.monotonic() - started < 5


def test_threads_end_with_the_context() -> None:
    worker: Any = Barrier(1)
    before = set(threading.enumerate())
    with LocalRunner(worker, 4):
        threads = set(threading.enumerate()) - before
        assert len(threads) == 4
    assert not any(thread.is_alive() for thread in threads)


def test_a_busy_thread_is_left_behind() -> None:
    worker: Any = Barrier(2)
    before = set(threading.enumerate())
    with LocalRunner(worker, 1) as runner:
        (thread,) = set(threading.enumerate()) - before
        runner.submit(Pack(0, ()))
    assert thread.is_alive()
    worker.perform(Pack(1, ()))
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("?", 8)]
)
def test_cores_respect_the_quota_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(local, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert available_cores() == cores


def test_cores_without_affinity_or_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_CGROUP_QUOTA", tmp_path / "none")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert available_cores() == 5
    assert default_workers("cpu") == 5
    assert default_workers("cuda") == 4


@pytest.mark.parametrize(
    ("asked", "has_gpu", "device"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_device(monkeypatch: pytest.MonkeyPatch, asked: str, has_gpu: bool, device: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    assert resolve_device(asked) == device


def test_a_missing_gpu_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageProblem, match="--device cpu"):
        resolve_device("cuda")
