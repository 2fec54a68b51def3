"""Log-mel to waveform: the vocoder, or Griffin-Lim, which needs no weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.errors import ShapeError
from audiovae.models.blocks import step_mask
from audiovae.models.vocoder import Vocoder
from audiovae.spectrogram import hann_window, inverse_mel_filterbank

GRIFFIN_LIM_ITERATIONS = 32
POLISH_STEPS = 8
"""Griffin-Lim steps after the vocoder: measured, most of the gain for a third of the speed."""
_GRIFFIN_LIM_CONTEXT_FRAMES = 64
_MOMENTUM = 0.99
_TINY = 1e-16  # keeps the phase of silence finite


def context_frames(vocoder: Vocoder | None) -> int:
    """Frames on each side that `synthesize` looks at; Griffin-Lim's reach fades beyond."""
    if vocoder is None:
        return _GRIFFIN_LIM_CONTEXT_FRAMES
    return vocoder.context_frames(POLISH_STEPS)


def synthesize(
    log_mel: Tensor, num_frames: Tensor, vocoder: Vocoder | None, seed: int = 0
) -> Tensor:
    """Make sound of a batch of log-mels.

    Args:
        log_mel: `[batch, mel, frame]`, natural log of magnitude.
        num_frames: `[batch]`; frames beyond these are padding and become silence.
        vocoder: None for Griffin-Lim under the default spectrogram.
        seed: Of Griffin-Lim's first phase.

    Returns:
        `[batch, sample]`, hop samples a frame.
    """
    if vocoder is not None:
        return vocoder.polish(vocoder.predict(log_mel, num_frames), POLISH_STEPS, num_frames)
    config = SpectrogramConfig()
    mask = step_mask(num_frames, log_mel.shape[2], 1)  # [batch, 1, frame]
    # What stands in the padding must not leak into the last frames of the signal.
    silenced = log_mel.masked_fill(mask == 0, config.log_floor)
    audible = mask[:, 0].repeat_interleave(config.hop_samples, dim=1)  # [batch, sample]
    return griffin_lim(silenced, config, seed=seed) * audible


def griffin_lim(
    log_mel: Tensor,
    config: SpectrogramConfig,
    iterations: int = GRIFFIN_LIM_ITERATIONS,
    seed: int = 0,
) -> Tensor:
    """Find a waveform whose spectrogram fits, from random phase (Griffin and Lim, 1984).

    Every item starts from the same phase, drawn from a generator of its own: what a log-mel
    sounds like depends neither on its place in a batch nor on what other threads draw, as it
    would with torchaudio's routine, whose iteration this is.

    Args:
        log_mel: `[batch, mel, frame]`, natural log of magnitude.
        config: Frame settings; the hop divides the window.
        iterations: Steps of the fast variant.
        seed: Of the first phase: same seed, same sound.

    Returns:
        `[batch, sample]`, hop samples a frame.

    Raises:
        ShapeError: If `log_mel` is not `[batch, mel, frame]`.
    """
    if log_mel.ndim != 3 or log_mel.shape[1] != config.num_mels:
        raise ShapeError(
            f"expected log_mel [batch, {config.num_mels}, frame], got {list(log_mel.shape)}"
        )
    magnitude = inverse_mel_filterbank(config).to(log_mel.device) @ log_mel.float().exp()
    # An STFT centres frame 0 on sample 0, this spectrogram half a hop later: one more frame on
    # each side, and half a hop cut off, line the two up.
    magnitude = functional.pad(magnitude.clamp(min=config.floor), (1, 1), mode="replicate")
    generator = torch.Generator().manual_seed(seed)
    turns = torch.rand(magnitude.shape[1:], generator=generator).to(log_mel.device)
    waveform = _iterate(magnitude, 2 * math.pi * turns, config, iterations)
    start = config.hop_samples // 2
    return waveform[:, start : start + log_mel.shape[2] * config.hop_samples]


def _iterate(
    magnitude: Tensor, phase: Tensor, config: SpectrogramConfig, iterations: int
) -> Tensor:
    """The fast variant: phase extrapolated by a momentum (Perraudin et al., 2013).

    Args:
        magnitude: `[batch, bin, frame]`.
        phase: `[bin, frame]` to begin with, radians.
        config: Frame settings.
        iterations: Steps.

    Returns:
        `[batch, sample]`, centred frames: `(frame - 1) * hop_samples` samples.
    """
    size, hop = config.window_samples, config.hop_samples
    window = hann_window(size, magnitude.device)
    momentum = _MOMENTUM / (1 + _MOMENTUM)
    direction = torch.polar(torch.ones_like(phase), phase)
    previous = torch.zeros((), dtype=direction.dtype, device=direction.device)
    for _ in range(iterations):
        waveform = torch.istft(magnitude * direction, size, hop, window=window)
        rebuilt = torch.stft(waveform, size, hop, window=window, return_complex=True)
        direction = rebuilt - momentum * previous
        direction = direction / (direction.abs() + _TINY)
        previous = rebuilt
    return torch.istft(magnitude * direction, size, hop, window=window)
