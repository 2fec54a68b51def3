"""Where windows meet, and whether it can be heard there."""

from __future__ import annotations

import torch
from torch import Tensor

from audiovae.chunks import STEP_FRAMES
from audiovae.config import SpectrogramConfig
from tests.tones import SAMPLE_RATE, noise

_HOP = SpectrogramConfig().hop_samples
SEAM_SAMPLES = STEP_FRAMES * _HOP
_LATENT_SAMPLES = 4 * _HOP  # of those at 21.5 Hz, each of which the sound may show; seams lie there
_REACH = 3  # samples on each side of a seam that a click would show in
_AROUND = SAMPLE_RATE // 40
_NUM_PLACES = 2000  # that seams are compared with, at most


def phrases(seconds: int, seed: int = 0) -> Tensor:
    """Decaying notes at random pitches and times over a little noise, `[sample]`."""
    draw = torch.Generator().manual_seed(seed)
    sound = noise(seconds * SAMPLE_RATE, seed, level=0.002)
    length = 2 * SAMPLE_RATE
    time = torch.arange(length) / SAMPLE_RATE
    for start in range(0, len(sound) - length, SAMPLE_RATE // 3):
        pitch, decay, place = torch.rand(3, generator=draw).tolist()
        hz = 110 * 2 ** (3 * pitch)
        note = sum((2 * torch.pi * hz * n * time).sin() / n for n in (1, 2, 3, 5))
        at = min(start + int(place * SAMPLE_RATE / 3), len(sound) - length)
        sound[at : at + length] += 0.1 * note * torch.exp(-(2 + 6 * decay) * time)
    return sound


def seam_ranks(sound: Tensor) -> list[float]:
    """For each seam the share of other places on the lattice of latents that are smoother than it.

    Smoothness is the largest third difference nearby, which a jump of the value or of its slope
    makes large, over that of the 50 ms around it, so that loud passages do not count as rough.
    """
    rough = sound.diff(n=3).abs()
    draw = torch.Generator().manual_seed(0)
    lattice = torch.arange(_LATENT_SAMPLES, len(rough) - _AROUND, _LATENT_SAMPLES)
    lattice = lattice[lattice % SEAM_SAMPLES != 0]
    places = lattice[torch.randperm(len(lattice), generator=draw)[:_NUM_PLACES]].tolist()
    elsewhere = torch.tensor([_roughness(rough, place) for place in places])
    seams = range(SEAM_SAMPLES, len(rough) - _AROUND, SEAM_SAMPLES)
    return [float((elsewhere < _roughness(rough, at)).float().mean()) for at in seams]


def _roughness(rough: Tensor, sample: int) -> float:
    place = sample - 2  # the third difference n is of the samples n to n + 3
    near = rough[place - _REACH : place + _REACH + 1].max()
    before, after = rough[place - _AROUND : place - _REACH], rough[place + _REACH + 1 :][:_AROUND]
    return float(near / before.max().maximum(after.max()).clamp(min=1e-9))
