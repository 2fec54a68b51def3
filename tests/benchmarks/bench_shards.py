"""What drawing a batch from shards costs beside drawing it from memory, and beside a step."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from audiovae.checkpoint import Provenance
from audiovae.config import load_config
from audiovae.training.crops import draw_crops
from audiovae.training.data import Corpus, load_waveforms, log_mel_corpus
from audiovae.training.loop import train
from audiovae.training.shards import load_shard_waveforms, load_shards
from audiovae.training.vae import VAETask
from tests.benchmarks.bench_training import Stopwatch
from tests.shard_files import CONFIG, make_shards
from tests.tones import write_tones

CONFIGS = Path(__file__).parent.parent.parent / "configs"
CPU = torch.device("cpu")
BATCHES = 100
STEPS = 4


def draw_milliseconds(corpus: Corpus, size: int, length: int) -> float:
    generator = torch.Generator().manual_seed(0)
    draw_crops(corpus, size, length, generator, CPU)
    started = time.perf_counter()
    for _ in range(BATCHES):
        draw_crops(corpus, size, length, generator, CPU)
    return (time.perf_counter() - started) / BATCHES * 1000


def bench_data_sources() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = write_tones(folder / "audio", count=24, seconds=20.0)
        make_shards(source, folder / "shards", with_audio=True)
        waveforms = load_waveforms(source, CONFIG.sample_rate)
        log_mels = log_mel_corpus(waveforms, CONFIG)
        mapped = load_shards(folder / "shards", CONFIG)
        mapped_waveforms = load_shard_waveforms(folder / "shards", CONFIG)
        print(f"\n{'batch':28} {'memory ms':>10} {'shards ms':>10}")
        for what, length, pair in (
            ("64 log-mels of 256 frames", 256, (log_mels, mapped)),
            ("32 waveforms of 32 768", 32_768, (waveforms, mapped_waveforms)),
        ):
            size = int(what.split()[0])
            times = [draw_milliseconds(corpus, size, length) for corpus in pair]
            print(f"{what:28} {times[0]:10.2f} {times[1]:10.2f}")
        rates = [steps_per_second(corpus, folder) for corpus in (log_mels, mapped, log_mels)]
        print(
            f"small.toml, steps/s: memory {rates[0]:.2f} shards {rates[1]:.2f} memory again "
            f"{rates[2]:.2f}"
        )


def steps_per_second(corpus: Corpus, folder: Path) -> float:
    watch = Stopwatch(1, STEPS)
    task = VAETask(load_config(CONFIGS / "small.toml"), *corpus.split(), folder, CPU, Provenance())
    train(task, folder, CPU, watcher=watch)
    return watch.steps_per_second
