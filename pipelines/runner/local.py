"""The local runner: threads of this process, at work as soon as the model is loaded.

Threads suffice because torch, libsndfile and FFmpeg release the interpreter lock; each uses
one core (`torch.set_num_threads(1)`). They share one model, whose weights are only read.
"""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from types import TracebackType

from audiovae.commands import UsageProblem
from pipelines.runner.units import Outcome, Performer, Unit

_GPU_THREADS = 4
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Cores this process may use: its affinity, capped by the quota of its container."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # no affinity on this system
        cores = os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def default_workers(device: str) -> int:
    """One thread a core; on a GPU a few, which read files for the one model there."""
    return available_cores() if device == "cpu" else min(available_cores(), _GPU_THREADS)


def resolve_device(asked: str) -> str:
    """`auto` is the GPU if there is one. Imports torch.

    Raises:
        UsageProblem: If a GPU is asked for and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise UsageProblem(
            "--device cuda: expected a CUDA device, torch finds none; use --device cpu, or check "
            "the driver with nvidia-smi"
        )
    return ("cuda" if has_gpu else "cpu") if asked == "auto" else asked


class LocalRunner:
    """Runs units in `num_workers` threads. See `units.Runner` for the contract."""

    def __init__(self, worker: Performer, num_workers: int) -> None:
        self._worker = worker
        self._threads = [
            threading.Thread(target=self._serve, name=f"worker-{i}", daemon=True)
            for i in range(num_workers)
        ]
        self._units: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._in_flight = 0

    @property
    def capacity(self) -> int:
        """One unit a thread; the driver answers an outcome within a millisecond."""
        return len(self._threads)

    def submit(self, unit: Unit) -> None:
        """Queue a unit."""
        self._in_flight += 1
        self._units.put(unit)

    def next_outcome(self, timeout_seconds: float) -> Outcome | None:
        """Wait for the next outcome."""
        try:
            outcome = self._outcomes.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        self._in_flight -= 1
        return outcome

    def __enter__(self) -> LocalRunner:
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """End the threads, and with them the worker's folders.

        If units are in flight, nobody waits for them: their threads die with the process.
        """
        for _ in self._threads:
            self._units.put(None)
        if not self._in_flight:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while (unit := self._units.get()) is not None:
            self._outcomes.put(self._worker.perform(unit))
