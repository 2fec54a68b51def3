"""How well faults of machines are found: the tables of docs/anomaly.md.

    python -m tests.benchmarks.bench_anomaly --recordings DIR --work DIR [--autoencoder FILE]
        [--adapt MINUTES] [--normal CLIPS] [--machines fan,city]

Builds the sounds of `machine_sounds.py` below --work (once), measures them, and prints the area
under the ROC curve of each fault, mean over machines.

What the detector looks at was chosen on the clips of seed 0; the tables are of another seed, which
cuts the same recordings elsewhere and draws other faults. The rows beside the detector:

- squared error of the same model at its low rate, what an anomaly detector of that kind often is;
- squared error of a deterministic autoencoder trained on general sound (--autoencoder);
- the detector with a model adapted to each machine, as `detect_anomalies --adapt` does (--adapt);
- squared error of a linear autoencoder (PCA of five log-mel frames) fitted to the normal clips of
  each machine, the optimum of the usual small baseline.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from audiovae.analysis.anomaly import Detector
from audiovae.analysis.detection_curve import detection_curve
from audiovae.analysis.pooling import Arrays
from audiovae.audio import read_audio
from audiovae.checkpoint import load_model
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioVAEError
from audiovae.measuring import Measurer, build_measurement, load_arrays
from audiovae.spectrogram import log_mel_spectrogram
from pipelines.detection.adapting import adapt
from pipelines.runner.recipe import weights_identity
from tests.benchmarks.machine_sounds import FAULTS, Counts, build

FALSE_ALARM_RATE = 0.05
CONTEXT_FRAMES = 5
COMPONENTS = (8, 64)
PACK = 20

Scores = dict[str, float]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--checkpoint", default="base")
    parser.add_argument("--autoencoder", default=None)
    parser.add_argument("--adapt", type=float, default=None, help="minutes")
    parser.add_argument("--normal", type=int, default=Counts.normal, help="clips of each machine")
    parser.add_argument("--machines", default="", help="names, separated by commas; default: all")
    parser.add_argument("--seed", type=int, default=1, help="0 drew the clips of the choices")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    counts = Counts(arguments.normal)
    sounds = arguments.work / f"machines_{arguments.seed}_of_{counts.normal}"
    if not sounds.exists():
        build(arguments.recordings, sounds, counts, arguments.seed)
    print(f"model {arguments.checkpoint}: {load_model(arguments.checkpoint, vocoder=None).id}\n")
    areas: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rates: dict[str, dict[str, tuple[float, float]]] = {}
    minutes = arguments.adapt
    chosen = set(filter(None, arguments.machines.split(",")))
    folders = [one for one in sorted(sounds.iterdir()) if not chosen or one.name in chosen]
    for folder in folders:
        _, test = profiles(folder, arguments.work, arguments.checkpoint)
        rows, rates[folder.name] = {"squared error, same model": squared_errors(test)}, {}
        checkpoints = {"detector": arguments.checkpoint}
        if minutes:
            results = arguments.work / "adapted" / folder.parent.name / folder.name
            adapted = adapt(arguments.checkpoint, folder / "normal", results, minutes, "cpu")
            checkpoints[f"detector, adapted for {minutes:g} minutes"] = adapted
        for row, checkpoint in checkpoints.items():
            normal, test = profiles(folder, arguments.work, checkpoint)
            detector = Detector(list(normal.values()))
            rows[row] = {name: detector.judge(profile).total for name, profile in test.items()}
            threshold = detector.threshold(FALSE_ALARM_RATE).value
            rates[folder.name][row] = alarm_rates(rows[row], threshold)
        if arguments.autoencoder:
            _, others = profiles(folder, arguments.work, arguments.autoencoder)
            rows["squared error, autoencoder"] = squared_errors(others)
        for count in COMPONENTS:
            rows[f"linear autoencoder, {count}"] = linear_errors(folder, count)
        for row, scores in rows.items():
            for kind in (*FAULTS, "all"):
                areas[row][kind].append(area(scores, kind))
    show(areas, rates, [one.name for one in folders])


def profiles(folder: Path, work: Path, checkpoint: str) -> tuple[dict[str, Arrays], ...]:
    """Profiles of the normal and of the test clips of a machine, measured once."""
    model = load_model(checkpoint, vocoder=None)
    # By the bytes: a name can come to mean other weights between two runs.
    identity = weights_identity(checkpoint)
    place = work / "profiles" / identity / folder.parent.name / folder.name
    for part in ("normal", "test"):
        made = place / part
        made.mkdir(parents=True, exist_ok=True)
        sources = [path for path in sorted((folder / part).glob("*.wav"))
                   if not (made / f"{path.stem}.npz").exists()]  # fmt: skip
        if not sources:
            continue
        measurer = Measurer(model, build_measurement("profile", model))
        for start in range(0, len(sources), PACK):
            pack = sources[start : start + PACK]
            jobs = [(path, {"profile": made / f"{path.stem}.npz"}) for path in pack]
            for result in measurer.process_files(jobs):
                if isinstance(result, AudioVAEError):
                    raise result
    return tuple(
        {path.stem: load_arrays(path) for path in sorted((place / part).glob("*.npz"))}
        for part in ("normal", "test")
    )


def squared_errors(found: dict[str, Arrays]) -> Scores:
    return {name: float(profile["squares"].mean()) for name, profile in found.items()}


def linear_errors(folder: Path, components: int) -> Scores:
    """Mean squared error of PCA on frames with their neighbours."""
    normal = np.concatenate([frames(path) for path in sorted((folder / "normal").glob("*.wav"))])
    mean, deviation = normal.mean(axis=0), normal.std(axis=0) + 1e-6
    model = PCA(components, svd_solver="randomized", random_state=0)
    model.fit((normal - mean) / deviation)
    scores = {}
    for path in sorted((folder / "test").glob("*.wav")):
        standardised = (frames(path) - mean) / deviation
        rebuilt = model.inverse_transform(model.transform(standardised))
        scores[path.stem] = float(np.square(standardised - rebuilt).mean())
    return scores


def frames(path: Path) -> NDArray[np.float32]:
    """`[frame, context * mel]`."""
    clip = read_audio(path)
    log_mel = log_mel_spectrogram(torch.from_numpy(clip.waveform), SpectrogramConfig()).numpy()[0]
    count = log_mel.shape[1] - CONTEXT_FRAMES + 1
    return np.concatenate([log_mel[:, i : i + count] for i in range(CONTEXT_FRAMES)]).T


def area(scores: Scores, kind: str) -> float:
    """Area under the curve of one kind of fault against the healthy clips."""
    chosen = {
        name: score
        for name, score in scores.items()
        if name.startswith("healthy") or kind == "all" or name.startswith(kind)
    }
    truth = [not name.startswith("healthy") for name in chosen]
    return detection_curve(list(chosen.values()), truth).area


def alarm_rates(scores: Scores, threshold: float) -> tuple[float, float]:
    """Shares of healthy and of faulty clips above the threshold."""
    healthy = [score > threshold for name, score in scores.items() if name.startswith("healthy")]
    faulty = [score > threshold for name, score in scores.items() if not name.startswith("healthy")]
    return float(np.mean(healthy)), float(np.mean(faulty))


def show(
    areas: dict[str, dict[str, list[float]]],
    rates: dict[str, dict[str, tuple[float, float]]],
    machines: list[str],
) -> None:
    print("| AUC, mean over machines | " + " | ".join((*FAULTS, "all")) + " |")
    print("|---" + "|---:" * (len(FAULTS) + 1) + "|")
    for row, kinds in areas.items():
        cells = [f"{np.mean(kinds[kind]):.3f}" for kind in (*FAULTS, "all")]
        print(f"| {row} | " + " | ".join(cells) + " |")

    print("\n| machine | " + " | ".join(areas) + " |")
    print("|---" + "|---:" * len(areas) + "|")
    for index, machine in enumerate(machines):
        cells = [f"{kinds['all'][index]:.3f}" for kinds in areas.values()]
        print(f"| {machine} | " + " | ".join(cells) + " |")

    rows = list(rates[machines[0]])
    print("\n| false alarms, hits | " + " | ".join(rows) + " |")
    print("|---" + "|---:" * len(rows) + "|")
    for machine in machines:
        alarms = [
            f"{100 * wrong:.0f} %, {100 * right:.0f} %" for wrong, right in rates[machine].values()
        ]
        print(f"| {machine} | " + " | ".join(alarms) + " |")


if __name__ == "__main__":
    main()
