"""What the gains of a file give and cost: the table in docs/quality.md.

    python -m tests.benchmarks.bench_gains --data DIR [--qualities 1,3,6]

The same clips with gains and without (all gains 0), and bare waveforms, which are unlike the
training data.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from audiovae.analysis.metrics import measure
from audiovae.audio import Clip, read_audio
from audiovae.checkpoint import Model, load_model
from audiovae.files import compress, decompress
from pipelines.evaluation.clips import find_clips
from tests.codec.tiny import without_gains

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
RATE = 44_100


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=EXAMPLES)
    parser.add_argument("--qualities", default="1,3,6")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = load_model("base")
    clips = [read_audio(clip.path, sample_rate=RATE) for clip in find_clips(arguments.data)]
    print("| | gains | kbps | mel distance | short | decoded too quiet by, dB |")
    print("|---|---|--:|--:|--:|--:|")
    for name, sounds in {"clips": clips, "bare waveforms": list(bare_waveforms())}.items():
        for quality in [int(text) for text in arguments.qualities.split(",")]:
            for with_gains in (False, True):
                with nullcontext() if with_gains else without_gains():
                    figures = np.mean([row(clip, model, quality) for clip in sounds], axis=0)
                cells = "{:.2f} | {:.3f} | {:.3f} | {:.1f}".format(*figures)
                print(f"| {name}, quality {quality} | {'yes' if with_gains else 'no'} | {cells} |")


def row(clip: Clip, model: Model, quality: int) -> list[float]:
    """True kbps, two distances, and how much weaker the decode is."""
    data = compress(clip, model, quality=quality)
    decoded = decompress(data, model).waveform
    found = measure(
        torch.from_numpy(decoded), torch.from_numpy(clip.waveform), RATE, with_visqol=False
    )
    power = [float((sound.astype(np.float64) ** 2).mean()) for sound in (clip.waveform, decoded)]
    weaker = 10 * np.log10((power[0] + 1e-12) / (power[1] + 1e-12))
    kbps = len(data) * 8 / 1000 / clip.duration_seconds
    return [kbps, found.mel_distance, found.short, float(weaker)]


def bare_waveforms() -> Iterator[Clip]:
    """Two seconds each: squares, a saw, a sine, a bell of eight partials, a fast sweep."""
    time = np.arange(2 * RATE) / RATE
    partials = enumerate([0.5, 1, 1.19, 1.56, 2, 2.66, 3.01, 4.1], start=1)
    bell = sum(
        np.exp(-time * (1 + ratio)) * np.sin(2 * np.pi * 440 * ratio * time) / number
        for number, ratio in partials
    )
    waves = [np.sign(np.sin(2 * np.pi * hertz * time)) for hertz in (55, 220, 880)]
    waves += [2 * ((110 * time) % 1) - 1, np.sin(2 * np.pi * 440 * time), bell]
    waves += [np.sin(2 * np.pi * (100 + 1000 * time) * time)]
    for wave in waves:
        yield Clip((0.3 * np.asarray(wave))[None].astype(np.float32), RATE)


def bench_gains() -> None:
    main([])


if __name__ == "__main__":
    main()
