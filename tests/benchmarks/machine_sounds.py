"""Sounds as of machines, and what goes wrong with them, for `bench_anomaly.py`.

A machine is a steady recording (named in `RECORDINGS` by the title that the recordings' manifest
gives) or synthetic. The first 60 % of each recording make normal clips to learn from, the rest the
clips to test on, so that no sample is in both. Test clips with a fault are normal test clips with
something put in: clicks, a tone, a dropout, or a musical instrument.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiovae.audio import read_audio

RATE = 44_100
CLIP_SECONDS = 4.0
RECORDINGS = {
    "pump": "minepump03.ogg",
    "city": "city_abnd_ufoai_atm.ogg",
    "fountain": "waterfontain.ogg",
    "night": "ufo_night_atm.ogg",
    "wind": "arcticwind.ogg",
    "storm": "thunder2.ogg",
}
SYNTHETIC = ("hum", "fan", "engine")
FAULTS = ("clicks", "tone", "dropout", "instrument")
_TRAINING_SHARE = 0.6
_LENGTH = int(CLIP_SECONDS * RATE)
Wave = NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True)
class Counts:
    """Clips of one machine."""

    normal: int = 40
    healthy: int = 20
    faulty: int = 10


def build(recordings: Path, folder: Path, counts: Counts, seed: int = 0) -> list[str]:
    """Write `MACHINE/normal/*.wav`, `MACHINE/test/*.wav` and `MACHINE/labels.csv`.

    Args:
        recordings: Folder with packs of audio, each with a manifest.csv.
        folder: Where they go.
        counts: How many of each kind.
        seed: Of cuts, gains and faults.

    Returns:
        The names of the machines.
    """
    rows = [row for pack in sorted(recordings.glob("*/manifest.csv")) for row in _rows(pack)]
    notes = [file for file, row in rows if row["class"] == "note"]
    machines: dict[str, tuple[list[Wave], list[Wave]] | str] = {name: name for name in SYNTHETIC}
    for name, title in RECORDINGS.items():
        machines[name] = _halves([_read(file) for file, row in rows if row["orig"] == title])
    for number, (name, source) in enumerate(sorted(machines.items())):
        random = np.random.default_rng([seed, number])
        _write_machine(folder / name, source, notes, counts, random)
    return sorted(machines)


def _write_machine(
    folder: Path,
    source: tuple[list[Wave], list[Wave]] | str,
    notes: list[Path],
    counts: Counts,
    random: Random,
) -> None:
    def cut(testing: bool) -> Wave:
        if isinstance(source, str):
            clean = _SYNTHESISERS[source](random)
        else:
            clean = _cut(source[testing], random)
        gain = 10 ** (random.uniform(-2, 2) / 20)
        return gain * (clean + 1e-4 * random.standard_normal(_LENGTH))

    for index in range(counts.normal):
        _write(folder / "normal" / f"{index:03d}.wav", cut(testing=False))
    labels = []
    for index in range(counts.healthy):
        labels.append((f"healthy_{index:03d}.wav", 0))
        _write(folder / "test" / labels[-1][0], cut(testing=True))
    for fault in FAULTS:
        for index in range(counts.faulty):
            labels.append((f"{fault}_{index:03d}.wav", 1))
            broken = _put_in(fault, cut(testing=True), notes, random)
            _write(folder / "test" / labels[-1][0], broken)
    lines = ["file,label", *(f"{name},{label}" for name, label in labels)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def _put_in(fault: str, wave: Wave, notes: list[Path], random: Random) -> Wave:
    """A clip with a fault, at a level near that of the machine."""
    level = np.sqrt(np.mean(wave**2))
    broken = wave.copy()
    start = int(random.uniform(0.1, 0.6) * _LENGTH)
    if fault == "clicks":
        for _ in range(random.integers(1, 4)):
            at = int(random.uniform(0.05, 0.9) * _LENGTH)
            length = int(random.uniform(0.001, 0.006) * RATE)
            burst = random.standard_normal(length) * np.exp(-np.linspace(0, 5, length))
            broken[at : at + length] += 3 * level * burst
    elif fault == "tone":
        seconds = np.arange(int(random.uniform(0.5, 1.5) * RATE)) / RATE
        tone = np.sin(2 * np.pi * random.uniform(800, 6000) * seconds)
        broken[start : start + len(tone)] += 0.15 * level * tone * np.hanning(len(tone))
    elif fault == "dropout":
        length = int(random.uniform(0.05, 0.3) * RATE)
        broken[start : start + length] *= 0.1
    else:
        note = _read(notes[random.integers(len(notes))])[: RATE * 2]
        note = note[: _LENGTH - start] / max(float(np.sqrt(np.mean(note**2))), 1e-4)
        broken[start : start + len(note)] += 0.3 * level * note
    return broken


def _hum(random: Random) -> Wave:
    """Mains hum with its harmonics, slowly breathing."""
    seconds = np.arange(_LENGTH) / RATE
    total = np.zeros(_LENGTH)
    for harmonic in range(1, 20):
        breath = 1 + 0.3 * np.sin(2 * np.pi * random.uniform(0.1, 0.5) * seconds + harmonic)
        phase = random.uniform(0, 2 * np.pi)
        total += breath / harmonic * np.sin(2 * np.pi * 50 * harmonic * seconds + phase)
    return 0.08 * total + 0.004 * _pink(random)


def _fan(random: Random) -> Wave:
    """Coloured noise, modulated by the passing of the blades."""
    seconds = np.arange(_LENGTH) / RATE
    rate_hz = random.uniform(23, 25)
    blades = 1 + 0.5 * np.sin(2 * np.pi * rate_hz * seconds + random.uniform(0, 6))
    return 0.05 * blades * _pink(random)


def _engine(random: Random) -> Wave:
    """Firing pulses of a wandering speed through noise."""
    drift = np.cumsum(random.standard_normal(_LENGTH)) / np.sqrt(RATE)
    phase = 2 * np.pi * np.cumsum(30 + 0.5 * drift) / RATE
    pulses = np.maximum(np.sin(phase), 0) ** 8
    return 0.2 * pulses * (0.5 + _pink(random)) + 0.01 * _pink(random)


_SYNTHESISERS: dict[str, Callable[[Random], Wave]] = {
    "hum": _hum,
    "fan": _fan,
    "engine": _engine,
}


def _pink(random: Random) -> Wave:
    """Noise that falls by 3 dB an octave, of unit deviation."""
    spectrum = np.fft.rfft(random.standard_normal(_LENGTH))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
    wave = np.fft.irfft(spectrum, _LENGTH)
    return wave / wave.std()


def _halves(waves: list[Wave]) -> tuple[list[Wave], list[Wave]]:
    cuts = [int(_TRAINING_SHARE * len(wave)) for wave in waves]
    pairs = list(zip(waves, cuts, strict=True))
    return [wave[:at] for wave, at in pairs], [wave[at:] for wave, at in pairs]


def _cut(waves: list[Wave], random: Random) -> Wave:
    """A stretch of one of some recordings, one that is too short going back and forth."""
    wave = waves[random.integers(len(waves))]
    while len(wave) < _LENGTH:
        wave = np.concatenate([wave, wave[::-1]])
    start = random.integers(len(wave) - _LENGTH + 1)
    return wave[start : start + _LENGTH]


def _rows(manifest: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield manifest.parent / row["file"], row


def _read(path: Path) -> Wave:
    clip = read_audio(path, sample_rate=RATE)
    return clip.waveform.mean(axis=0).astype(np.float64)


def _write(path: Path, wave: Wave) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(wave, -1, 1).astype(np.float32), RATE, subtype="PCM_16")
