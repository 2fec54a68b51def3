"""What `pipelines.train --init base` gives on twenty minutes of one instrument.

    python -m tests.benchmarks.bench_own_sound --soundfont FILE --work DIR [--minutes 14]

Plays an instrument of a soundfont (a sitar; `base` has learnt from another soundfont), fine-tunes
the shipped model on it, and evaluates both models on phrases held back. Tables are below DIR, in
`before/` and `after/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from audiovae.audio import write_audio
from audiovae.training.instruments import Instrument, Layer, SoundfontPlayer
from audiovae.training.phrases import draw_phrase
from pipelines.evaluate import main as evaluate
from pipelines.train import main as train

RATE = 44_100
SITAR = 104
PHRASE_SECONDS = 20.0
TRAINING_PHRASES = 60
HELD_BACK_PHRASES = 12


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--soundfont", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=14)
    arguments = parser.parse_args(argv)
    work = arguments.work
    play(arguments.soundfont, work / "sitar", TRAINING_PHRASES, seed=0)
    play(arguments.soundfont, work / "held_back", HELD_BACK_PHRASES, seed=1)
    run(train, "--init", "base", "--data", work / "sitar", "--output-dir", work / "run",
        "--minutes", arguments.minutes, "--licence", "MIT")  # fmt: skip
    after = work / "run" / "base.safetensors", work / "run" / "vocoder.safetensors"
    for name, (checkpoint, vocoder) in {"before": ("base", "vocoder"), "after": after}.items():
        run(evaluate, "--data", work / "held_back", "--checkpoint", checkpoint,
            "--vocoder", vocoder, "--qualities", "4,6", "--no-visqol",
            "--output-dir", work / name)  # fmt: skip


def run(command: Callable[[list[str]], int], *arguments: object) -> None:
    status = command([str(one) for one in arguments])
    if status != 0:
        raise SystemExit(status)


def play(soundfont: Path, folder: Path, count: int, seed: int) -> None:
    """Write phrases of the instrument, `count` files of `PHRASE_SECONDS`."""
    player = SoundfontPlayer(soundfont, RATE)
    folder.mkdir(parents=True, exist_ok=True)
    samples = round(PHRASE_SECONDS * RATE)
    for index in range(count):
        phrase = draw_phrase(np.random.default_rng((seed, index)), PHRASE_SECONDS - 1)
        sound = player.play(phrase, Instrument((Layer(SITAR),)), samples)
        write_audio(folder / f"phrase_{index:02d}.flac", sound[None], RATE, bit_depth=16)


if __name__ == "__main__":
    main()
