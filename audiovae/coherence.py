"""Coherence: how far two channels move together, which no log-mel tells.

Each channel is sounded from its own magnitudes. The vocoder gives two that are alike nearly the
same phase, so a wide sound would come back narrow, and a channel that is another upside down
would come back upright. So every channel but the first has an angle for every 16 mel bands and
0.37 s: its cosine is the coherence with the first, 1 in phase and -1 upside down. That is the
inter-channel coherence of parametric stereo (Breebaart, van de Par, Kohlrausch and Schuijers,
2005, doi:10.1155/ASP.2005.1305), for 30 to 50 bits a second. The levels are those of the log-mels.

Angles live at the middles of their bands and blocks, as gains do; between them they go over
linearly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.gains import NUM_BANDS, hats, num_blocks
from audiovae.spectrogram import hann_window, mel_filterbank

Angles = NDArray[np.int32]
"""`[band, block]`, whole steps of `STEP_RADIANS` from 0 to `MAX_STEPS`."""

MAX_STEPS = 8
STEP_RADIANS = math.pi / MAX_STEPS
_SIDE_BINS = 32
"""Bins turned to one side: 689 Hz, so that what is turned has echoes of about a millisecond."""
_LEAN = 0.25
"""Steps that rounding leans to the same phase or its opposite: decodes agree too little."""
_FRAMES_AT_ONCE = 64
_TINY = 1e-9


def measure_angles(
    first: Tensor, channel: Tensor, num_frames: int, config: SpectrogramConfig
) -> Angles:
    """Angles of a channel to the first one, in a chunk.

    What is compared is phase alone, each bin weighted by both magnitudes: the magnitudes have a
    log-mel each.

    Args:
        first: `[sample]` of the chunk.
        channel: `[sample]`, as many.
        num_frames: Mel frames of the chunk.
        config: Of the log-mel.
    """
    in_bands = _bins_of_bands(config).T
    by_frame = []
    # In pieces that fit the cache: twice as fast as all at once.
    for one, other in zip(_spectra(first, config), _spectra(channel, config), strict=True):
        # By hand: several times faster than complex products and their abs().
        along = one[..., 0] * other[..., 0] + one[..., 1] * other[..., 1]  # [frame, bin]
        powers = [spectrum.square().sum(dim=2) for spectrum in (one, other)]
        whole = (powers[0] * powers[1]).sqrt()
        by_frame.append(torch.stack([along, whole]) @ in_bands)
    sums = torch.cat(by_frame, dim=1).double()  # [2, frame, band]
    along, whole = hats(num_blocks(num_frames), sums.shape[1], sums.device) @ sums
    # In silence there is no phase: it counts as the same.
    coherence = ((along + _TINY) / (whole + _TINY)).clamp(-1, 1)
    steps = coherence.acos() / STEP_RADIANS - _LEAN * coherence.sign()
    angles: Angles = steps.round().clamp(0, MAX_STEPS).T.numpy().astype(np.int32)
    return angles


def angles_of_frames(angles: Angles, num_frames: int) -> Tensor:
    """Angles `[band, block]` as `[band, frame]`, radians."""
    in_blocks = hats(angles.shape[1], num_frames, torch.device("cpu"))
    return (STEP_RADIANS * torch.from_numpy(angles).double() @ in_blocks).float()


def turn(direction: Tensor, angles: Tensor, config: SpectrogramConfig) -> Tensor:
    """Turn the phase of a channel by its angles, in turns of some bins to one side and the other.

    Sides alternate, so the channel does not lean to one of them: what it has in common with the
    first is the cosine of the angle, whatever the phase that both began with.

    Args:
        direction: `[batch, frame, bin]`, complex of modulus 1.
        angles: `[batch, band, frame]`, radians.
        config: Of the log-mel.
    """
    bins = _bins_of_bands(config).to(direction.device)
    sides = 1 - 2 * (torch.arange(config.num_bins, device=direction.device) // _SIDE_BINS % 2)
    radians = angles.transpose(1, 2) @ (bins * sides)
    return direction * torch.polar(torch.ones_like(radians), radians)


def _spectra(samples: Tensor, config: SpectrogramConfig) -> Iterator[Tensor]:
    """Real and imaginary part, `[frame, bin, 2]`, of whole windows, some at a time."""
    missing = max(0, config.window_samples - len(samples))
    frames = functional.pad(samples, (0, missing)).unfold(
        0, config.window_samples, config.hop_samples
    )
    window = hann_window(config.window_samples, samples.device)
    for some in torch.split(frames, _FRAMES_AT_ONCE):
        yield torch.view_as_real(torch.fft.rfft(some * window))


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _bins_of_bands(config: SpectrogramConfig) -> Tensor:
    """`[band, bin]`: what each bin has of the angle of each band."""
    filters = mel_filterbank(config)  # [mel, bin]
    shares = filters / filters.sum(dim=0).clamp(min=_TINY)
    return hats(NUM_BANDS, config.num_mels, filters.device).float() @ shares
