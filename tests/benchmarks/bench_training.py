"""Training steps a second: the base config on a GPU if there is one, the small one on a core."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from audiovae.checkpoint import Provenance
from audiovae.config import load_config
from audiovae.training.loop import Watcher, train
from audiovae.training.state import Progress
from audiovae.training.vae import VAETask
from tests.tones import log_mel_corpus

CONFIGS = Path(__file__).parent.parent.parent / "configs"


class Stopwatch(Watcher):
    """Times the steps after a warm-up, in which a GPU compiles."""

    def __init__(self, warm_up: int, steps: int) -> None:
        self._warm_up, self._last = warm_up, warm_up + steps
        self._started = self._stopped = 0.0
        self._step = 0

    def stepped(self, progress: Progress) -> None:
        self._step = progress.step
        if progress.step == self._warm_up:
            self._started = time.perf_counter()
        if progress.step == self._last:
            self._stopped = time.perf_counter()

    def wants_stop(self) -> bool:
        return self._step >= self._last

    @property
    def steps_per_second(self) -> float:
        return (self._last - self._warm_up) / (self._stopped - self._started)


def bench_training_steps() -> None:
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    config = load_config(CONFIGS / ("base.toml" if on_gpu else "small.toml"))
    watch = Stopwatch(*((20, 100) if on_gpu else (1, 3)))
    with TemporaryDirectory() as folder:
        corpora = log_mel_corpus(count=8, seconds=8).split()
        task = VAETask(config, *corpora, Path(folder), device, Provenance())
        train(task, Path(folder), device, watcher=watch)
    training = config.training
    crops = f"{training.batch_size} x {training.crop_frames} frames"
    size = sum(p.numel() for p in task.model.parameters()) / 1e6
    rate = watch.steps_per_second
    print(f"\n{'model':8} {'parameters':>11} {'batch':>18} {'steps/s':>8}  device")
    print(f"{config.name:8} {size:10.1f}M {crops:>18} {rate:8.2f}  {name}")
