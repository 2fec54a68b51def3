"""What the angles of a file give and cost: the table in docs/quality.md.

    python -m tests.benchmarks.bench_stereo --data DIR

Stereo clips of `examples/`, and mixes of three clips of DIR each, placed left, right and in the
middle, dry and in a made-up room; with angles, and with the same file's channels all in phase.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.signal import fftconvolve
from torch import Tensor

from audiovae.audio import Clip, read_audio
from audiovae.checkpoint import Model, load_model
from audiovae.compressed import quality_lambda
from audiovae.objectives.spectral import mel_distance
from audiovae.reconstruct import Reconstructor
from audiovae.stretches import Signal, Stopwatch, Stretch
from pipelines.evaluation.clips import find_clips

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
RATE = 44_100
SECONDS = 5.0
PARTS = 3
_MIXES = 8
_BLOCK = 16_384  # 0.37 s
_TINY = 1e-12


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=EXAMPLES)
    parser.add_argument("--quality", type=int, default=6)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = load_model("base")
    print(
        "| | angles | bits a second | coherence error | mono error, dB | mel | of mid | of side |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name, clips in sounds(arguments.data).items():
        for with_angles in (False, True):
            figures = np.mean(
                [row(c, model, arguments.quality, with_angles) for c in clips], axis=0
            )
            cells = "{:.0f} | {:.2f} | {:.2f} | {:.3f} | {:.3f} | {:.3f}".format(*figures)
            print(f"| {name} | {'yes' if with_angles else 'no'} | {cells} |", flush=True)


def sounds(folder: Path) -> dict[str, list[Clip]]:
    """Clips by what they are."""
    found = {
        clip.path.name: [sound]
        for clip in find_clips(EXAMPLES)
        if (sound := read_audio(clip.path, sample_rate=RATE)).num_channels == 2
        and not np.array_equal(*sound.waveform)
    }
    paths = [clip.path for clip in find_clips(folder)]
    return {
        **found,
        "dry mixes": list(mixes(paths, 0.0)),
        "mixes in a room": list(mixes(paths, 0.3)),
    }


def mixes(paths: list[Path], wet: float) -> Iterator[Clip]:
    """Three sounds each, equally loud, at three places."""
    generator = np.random.default_rng(0)
    for number in range(_MIXES // 2):
        places = (0.2, 0.5, 0.8) if number % 2 else (0.5, 0.5, 0.9)
        total = np.zeros((2, round(SECONDS * RATE)))
        for index, place in zip(generator.choice(len(paths), PARTS), places, strict=True):
            sound = read_audio(paths[index], sample_rate=RATE).waveform[0, : total.shape[1]]
            sound = 0.05 * sound / (np.sqrt(np.square(sound).mean()) + _TINY)
            turn = place * np.pi / 2
            placed = np.array([[np.cos(turn)], [np.sin(turn)]]) * sound
            total[:, : len(sound)] += placed + wet * room(sound, generator)
        yield Clip(total.clip(-1, 1).astype(np.float32), RATE)


def room(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Noise that dies away, another on each side, as an impulse response of 0.8 s."""
    decay = np.exp(-np.arange(round(0.8 * RATE)) / RATE / 0.15)
    responses = generator.standard_normal((2, len(decay))) * decay
    responses /= np.linalg.norm(responses, axis=1, keepdims=True)
    return np.stack([fftconvolve(sound, one)[: len(sound)] for one in responses])


def row(clip: Clip, model: Model, quality: int, with_angles: bool) -> list[float]:
    """Price and errors of one clip."""
    config = model.config.spectrogram
    stretch = Stretch.whole(clip.num_samples, config)
    log_lambda = quality_lambda(model, quality)
    signal = Signal(stretch, clip.waveform, config, log_lambda=log_lambda)
    reconstructor, watch = Reconstructor(model), Stopwatch()
    coding = reconstructor.code([signal], watch)[0]
    bare = reconstructor.code([replace_angles(signal)], watch)[0]
    price = 8 * sum(len(chunk.payload) for chunk in coding.chunks)
    price -= 8 * sum(len(chunk.payload) for chunk in bare.chunks)
    made = reconstructor.sound([coding if with_angles else replace(coding, angles=())], watch)[0]
    truth, found = torch.from_numpy(clip.waveform), torch.from_numpy(made)
    sides = [(one[:1], one[1:], one.mean(0)[None], one.diff(dim=0) / 2) for one in (found, truth)]
    left, right, mid, side = (float(mel_distance(*pair, RATE)) for pair in zip(*sides, strict=True))
    return [
        with_angles * price / clip.duration_seconds,
        coherence_error(found, truth),
        abs(mono_db(found) - mono_db(truth)),
        (left + right) / 2,
        mid,
        side,
    ]


class _InPhase(Signal):
    """A signal whose channels are all taken to be in phase."""

    def angles_in(self, _chunk: int, sources: tuple[int, ...]) -> dict[int, None]:
        return dict.fromkeys(sources)


def replace_angles(signal: Signal) -> Signal:
    """The same signal, all in phase."""
    return _InPhase(
        signal.stretch, signal.waveform, signal.config, signal.offset, signal.log_lambda
    )


def mono_db(stereo: Tensor) -> float:
    """How strong the sum of both channels is beside their powers."""
    powers = stereo.double().square().sum() + _TINY
    return float(10 * torch.log10(stereo.double().sum(0).square().sum() / powers + _TINY))


def coherence_error(found: Tensor, truth: Tensor) -> float:
    """Mean difference of the channels' correlation, in octaves and blocks of 0.37 s."""
    ours, theirs, weights = [], [], []
    for start in range(0, truth.shape[1] - _BLOCK + 1, _BLOCK):
        here = slice(start, start + _BLOCK)
        for values, sound in ((ours, found), (theirs, truth)):
            spectra = torch.fft.rfft(sound[:, here].double() * torch.hann_window(_BLOCK))
            for octave in range(5, 13):
                one, other = spectra[:, 2**octave : 2 ** (octave + 1)]
                power = one.abs().square().sum() * other.abs().square().sum()
                values.append(float((one * other.conj()).real.sum() / (power.sqrt() + _TINY)))
                if sound is truth:
                    weights.append(float(power**0.25))
    return float(np.average(np.abs(np.subtract(ours, theirs)), weights=weights))


def bench_stereo() -> None:
    main([])


if __name__ == "__main__":
    main()
