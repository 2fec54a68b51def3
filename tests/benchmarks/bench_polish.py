"""What polishing steps give and cost: the table in docs/quality.md behind the default.

    python -m tests.benchmarks.bench_polish --data DIR [--quality 6] [--steps 0,2,4,8,16,32]

Copy synthesis sounds the true log-mel; the other half what the VAE decodes at a quality. Speed is
that of synthesis alone (vocoder and steps), by time of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from audiovae.analysis.metrics import Distances, measure
from audiovae.audio import read_audio
from audiovae.checkpoint import Model, load_model
from audiovae.compressed import quality_lambda
from audiovae.reconstruct import Reconstructor
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.stretches import Coding, Signal, Stopwatch, Stretch, channel_of
from pipelines.evaluation.clips import ClipFile, find_clips

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@dataclass(frozen=True)
class Trial:
    """One clip, sounded once."""

    what: str
    steps: int
    seconds_of_sound: float
    seconds_taken: float
    distances: Distances


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=EXAMPLES)
    parser.add_argument("--quality", type=int, default=6)
    parser.add_argument("--steps", default="0,2,4,8,16,32")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    steps = [int(text) for text in arguments.steps.split(",")]
    model = load_model("base")
    sounders = {count: Reconstructor(model, polish_steps=count) for count in steps}
    trials: dict[tuple[str, int], list[Trial]] = defaultdict(list)
    for clip in find_clips(arguments.data):
        for trial in clip_trials(clip, model, sounders, arguments.quality):
            trials[trial.what, trial.steps].append(trial)
    print("| | steps | mel distance | short | log-mel dB | PESQ-WB (speech) | times real time |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for (what, count), own in sorted(trials.items()):
        print(f"| {what} | {count} | " + " | ".join(cells(own)) + " |")


def clip_trials(
    clip: ClipFile, model: Model, sounders: dict[int, Reconstructor], quality: int
) -> Iterator[Trial]:
    """Every number of steps on one clip, after its true and its decoded log-mel."""
    config = model.config.spectrogram
    waveform = read_audio(clip.path, sample_rate=config.sample_rate).waveform
    stretch = Stretch.whole(waveform.shape[1], config)
    signal = Signal(stretch, waveform, config, 0, quality_lambda(model, quality))
    decoded = next(iter(sounders.values())).code([signal], Stopwatch())[0]
    sources = channel_of(signal)
    coded = sorted(set(sources))
    true = log_mel_spectrogram(torch.from_numpy(waveform[coded]), config)
    codings = {
        "copy synthesis": Coding(stretch, sources, tuple(true)),
        f"quality {quality}": decoded,
    }
    seconds = waveform.shape[1] / config.sample_rate * len(coded)
    for what, coding in codings.items():
        for steps, sounder in sounders.items():
            started = time.process_time()
            sound = sounder.sound([coding], Stopwatch())[0]
            taken = time.process_time() - started
            distances = measure(
                torch.from_numpy(sound),
                torch.from_numpy(waveform),
                config.sample_rate,
                is_speech=clip.is_speech,
                with_visqol=False,
            )
            yield Trial(what, steps, seconds, taken, distances)


def cells(trials: list[Trial]) -> list[str]:
    """Means over clips, and the speed over all of them."""
    found = [trial.distances for trial in trials]
    pesq = [one.pesq_wb for one in found if one.pesq_wb is not None]
    speed = sum(t.seconds_of_sound for t in trials) / sum(t.seconds_taken for t in trials)
    return [
        f"{fmean(one.mel_distance for one in found):.3f}",
        f"{fmean(one.short for one in found):.3f}",
        f"{fmean(one.log_mel_db for one in found):.2f}",
        f"{fmean(pesq):.2f}" if pesq else "",
        f"{speed:.0f}",
    ]


def bench_polish() -> None:
    main([])


if __name__ == "__main__":
    main()
