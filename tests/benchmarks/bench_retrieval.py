"""How often a clip's nearest neighbours are of its kind: the tables of docs/embedding.md.

    python -m tests.benchmarks.bench_retrieval --recordings DIR --soundfont FILE

--recordings is a folder with a manifest.csv (columns file and class). Of the soundfont, single
notes of every other melodic program are rendered: eight pitches each, at several velocities and
levels; a note's neighbours are looked for among the notes of all programs. MFCCs are librosa's:
their means over time, as they are and standardised over the collection, and the same with their
deviations and those of their slopes, which is more than the usual baseline.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from audiovae.analysis.embedding import nearest
from audiovae.audio import read_audio
from audiovae.checkpoint import Model, load_model
from audiovae.errors import AudioVAEError
from audiovae.measuring import Measurer, build_measurement, load_arrays

RATE = 44_100
PITCHES = (43, 48, 53, 57, 62, 67, 72, 76)
VELOCITIES = (60, 110)
HELD_SECONDS, RELEASE_SECONDS = 1.0, 0.5
SECONDS_OF_CLIP = 5.0
RANKS = (1, 3, 5)
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Sound:
    """A file and its kind."""

    path: Path
    kind: str


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--soundfont", type=Path, required=True)
    parser.add_argument("--checkpoint", default="base")
    parser.add_argument("--first-program", type=int, default=1, help="1: odd programs, 0: even")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = load_model(arguments.checkpoint, vocoder=None)
    print(f"model {arguments.checkpoint}: {model.id}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for title, sounds in (
            (arguments.recordings.name, list(recordings(arguments.recordings, place))),
            ("rendered notes", list(notes(arguments.soundfont, place, arguments.first_program))),
        ):
            kinds = [sound.kind for sound in sounds]
            print(f"\n{title}: {len(sounds)} sounds of {len(set(kinds))} kinds\n")
            print("| share of the nearest that are of the same kind | " + " | ".join(
                f"{rank} nearest" for rank in RANKS) + " |")  # fmt: skip
            print("|---" + "|---:" * len(RANKS) + "|")
            rows = {"embedding": embeddings(model, sounds, place), **mfcc_rows(sounds)}
            rows["chance"] = np.random.default_rng(0).random((len(sounds), 8)).astype(np.float32)
            for name, vectors in rows.items():
                cells = [f"{precision(vectors, kinds, rank):.3f}" for rank in RANKS]
                print(f"| {name} | " + " | ".join(cells) + " |")


def recordings(folder: Path, place: Path) -> Iterator[Sound]:
    """The beginning of each recording."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for index, row in enumerate(csv.DictReader(file)):
            clip = read_audio(
                folder / row["file"], duration_seconds=SECONDS_OF_CLIP, sample_rate=RATE
            )
            path = place / f"recording_{index:04d}.wav"
            soundfile.write(path, clip.waveform.mean(axis=0), RATE, subtype="FLOAT")
            yield Sound(path, row["class"])


def notes(soundfont: Path, place: Path, first_program: int) -> Iterator[Sound]:
    """Single notes of every other melodic program, at random levels."""
    import tinysoundfont

    random = np.random.default_rng(first_program)
    synth = tinysoundfont.Synth(samplerate=RATE)
    instruments = synth.sfload(str(soundfont))
    for program in range(first_program, 112, 2):
        synth.program_select(0, instruments, 0, program)
        for pitch in PITCHES:
            key = pitch + int(random.integers(-2, 3))
            synth.noteon(0, key, int(random.choice(VELOCITIES)))
            held = _generate(synth, HELD_SECONDS)
            synth.noteoff(0, key)
            wave = np.concatenate([held, _generate(synth, RELEASE_SECONDS)])
            synth.sounds_off()
            if np.abs(wave).max() < 1e-4:  # outside the instrument's range
                continue
            level = 0.5 * 10 ** (random.uniform(-12, 0) / 20)
            path = place / f"note_{program:03d}_{key:03d}.wav"
            soundfile.write(path, level * wave / np.abs(wave).max(), RATE, subtype="FLOAT")
            yield Sound(path, str(program))


def _generate(synth: object, seconds: float) -> Vectors:
    made = synth.generate(int(seconds * RATE))  # type: ignore[attr-defined]
    return np.frombuffer(bytes(made), np.float32).reshape(-1, 2).mean(axis=1)


def embeddings(model: Model, sounds: Sequence[Sound], place: Path) -> Vectors:
    """As `python -m pipelines.embed` writes them."""
    measurer = Measurer(model, build_measurement("embedding", model))
    vectors = []
    for sound in sounds:
        destination = place / "vector.npz"
        (result,) = measurer.process_files([(sound.path, {"embedding": destination})])
        if isinstance(result, AudioVAEError):
            raise result
        vectors.append(load_arrays(destination)["embedding"])
    return np.stack(vectors)


def mfcc_rows(sounds: Sequence[Sound]) -> dict[str, Vectors]:
    """The baseline, plain and generous."""
    means, everything = [], []
    for sound in sounds:
        wave, _ = soundfile.read(sound.path, dtype="float32")
        mfcc = librosa.feature.mfcc(y=wave, sr=RATE, n_mfcc=20)
        slopes = librosa.feature.delta(mfcc, mode="nearest")
        means.append(mfcc.mean(axis=1))
        everything.append(np.concatenate([means[-1], mfcc.std(axis=1), slopes.std(axis=1)]))
    return {
        "MFCC means": np.stack(means),
        "MFCC means, standardised": _standardised(np.stack(means)),
        "MFCC means, deviations and slopes, standardised": _standardised(np.stack(everything)),
    }


def _standardised(vectors: Vectors) -> Vectors:
    return ((vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-6)).astype(np.float32)


def precision(vectors: Vectors, kinds: Sequence[str], rank: int) -> float:
    """Mean share of the `rank` nearest other sounds that are of a sound's kind."""
    found, _ = nearest(vectors, vectors, rank + 1)
    shares = []
    for index, row in enumerate(found.tolist()):
        others = [other for other in row if other != index][:rank]
        shares.append(np.mean([kinds[other] == kinds[index] for other in others]))
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
