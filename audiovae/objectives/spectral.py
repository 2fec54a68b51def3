"""Spectral losses and distances of waveforms, and the phase losses of the vocoder.

Phase is a circle: differences are wrapped to (-pi, pi] before their size is taken, for the phase
itself, its difference between neighbouring bins (group delay) and between neighbouring frames
(instantaneous frequency), as in APNet 2 (Du et al., 2023, arXiv:2311.11545). The multi-scale mel
distance is that of the DAC paper (Kumar et al., 2023, arXiv:2306.06546).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import hann_window, mel_filterbank

MEL_DISTANCE_WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
MEL_DISTANCE_BANDS = (5, 10, 20, 40, 80, 160, 320)
SHORT_WINDOWS = (32, 64, 128, 256)
"""Windows of the *short* mel distance, which sees smeared onsets and wrong phase."""
STFT_WINDOWS = (512, 1024, 2048)
_MAGNITUDE_FLOOR = 1e-5
_QUIET = 1e-2  # norm of a spectrum that is as good as silent
_PHASE_WEIGHT_POWER = 0.3  # loud bins count more, but quiet ones still count


def mel_distances(estimate: Tensor, target: Tensor, sample_rate: int) -> dict[int, Tensor]:
    """Mean absolute difference of log10 mel magnitudes at each window length.

    Args:
        estimate: `[batch, sample]`.
        target: `[batch, sample]`.
        sample_rate: Hz.

    Returns:
        Window length in samples to a scalar; their sum is the mel distance.
    """
    distances = {}
    for window, bands in zip(MEL_DISTANCE_WINDOWS, MEL_DISTANCE_BANDS, strict=True):
        config = SpectrogramConfig(
            sample_rate=sample_rate,
            window_samples=window,
            hop_samples=window // 4,
            num_mels=bands,
            max_hz=sample_rate / 2,
        )
        filters = _filters(config, estimate.device)
        logs = [
            (filters @ _stft(wave, window).abs()).clamp(min=_MAGNITUDE_FLOOR).log10()
            for wave in (estimate, target)
        ]
        distances[window] = (logs[0] - logs[1]).abs().mean()
    return distances


def mel_distance(estimate: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """The multi-scale mel distance: the sum of `mel_distances` over all windows."""
    return torch.stack(list(mel_distances(estimate, target, sample_rate).values())).sum()


def mel_and_short_distance(
    estimate: Tensor, target: Tensor, sample_rate: int
) -> tuple[float, float]:
    """The multi-scale mel distance, and the part of it that is *short*: of `SHORT_WINDOWS`."""
    by_window = mel_distances(estimate, target, sample_rate)
    short = sum(float(by_window[window]) for window in SHORT_WINDOWS)
    return sum(float(distance) for distance in by_window.values()), short


def magnitude_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """How far the magnitudes of two sounds are apart: loud bins, middling ones and quiet ones.

    Spectral convergence (Arik et al., 2018, arXiv:1808.06719), the L1 of square roots and that of
    logarithms, over three window lengths. Nothing here is asked of the phase: a loss of complex
    spectra makes those bins quieter whose phase cannot be known.

    Args:
        estimate: `[batch, sample]`.
        target: `[batch, sample]`.
    """
    total = estimate.new_zeros(())
    for window in STFT_WINDOWS:
        made, true = (_magnitude(_stft(wave, window)) for wave in (estimate, target))
        # Not the root of a sum, which has no gradient where both are silence.
        distance = torch.linalg.vector_norm(made - true, dim=(1, 2))
        size = torch.linalg.vector_norm(true, dim=(1, 2))
        convergence = distance / (size + _QUIET)
        total = total + convergence.mean()
        total = total + 2.0 * (made.sqrt() - true.sqrt()).abs().mean()
        total = total + 0.5 * (made.log() - true.log()).abs().mean()
    return total / len(STFT_WINDOWS)


def framed_spectrum(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """Complex spectrum `[batch, bin, frame]` of the very frames of the log-mel.

    Phase is referred to each window's centre, where it varies slowly from bin to bin.

    Args:
        waveform: `[batch, sample]`, a whole number of hops and at least a window.
        config: Frame settings.
    """
    margin = (config.window_samples - config.hop_samples) // 2
    padded = functional.pad(waveform[:, None], (margin, margin), mode="reflect")[:, 0]
    window = hann_window(config.window_samples, waveform.device)
    frames = padded.unfold(1, config.window_samples, config.hop_samples) * window
    spectrum = torch.fft.rfft(frames).transpose(1, 2)
    signs = 1.0 - 2.0 * (torch.arange(config.num_bins, device=waveform.device) % 2)
    centred: Tensor = spectrum * signs[:, None]
    return centred


def phase_losses(phase: Tensor, target: Tensor, magnitude: Tensor) -> Tensor:
    """Wrapped L1 of phase, group delay and phase-time difference, weighted by magnitude.

    Args:
        phase: `[batch, bin, frame]`, radians.
        target: `[batch, bin, frame]`, radians.
        magnitude: `[batch, bin, frame]` of the target: where there is no sound, phase is free.
    """
    difference = phase - target
    weight = magnitude.clamp(min=0).pow(_PHASE_WEIGHT_POWER)
    weight = weight / weight.mean(dim=(1, 2), keepdim=True).clamp(min=1e-3)
    by_bin = difference.diff(dim=1)
    by_frame = difference.diff(dim=2)
    return (
        (_wrapped_size(difference) * weight).mean()
        + (_wrapped_size(by_bin) * weight[:, 1:]).mean()
        + (_wrapped_size(by_frame) * weight[:, :, 1:]).mean()
    )


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _filters(config: SpectrogramConfig, device: torch.device) -> Tensor:
    """Mel filters `[mel, bin]`, copied to a device once."""
    return mel_filterbank(config).to(device)


def _wrapped_size(angle: Tensor) -> Tensor:
    return (angle - 2 * math.pi * torch.round(angle / (2 * math.pi))).abs()


def _magnitude(spectrum: Tensor) -> Tensor:
    """Size of complex numbers, with a gradient at zero."""
    parts = torch.view_as_real(spectrum)
    return (parts.square().sum(dim=-1) + _MAGNITUDE_FLOOR**2).sqrt()


def _stft(waveform: Tensor, window: int) -> Tensor:
    return torch.stft(
        waveform,
        window,
        hop_length=window // 4,
        window=hann_window(window, waveform.device),
        return_complex=True,
    )
