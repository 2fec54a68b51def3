"""Log-mel to waveform: the vocoder, or Griffin-Lim, which needs no weights."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.models.vocoder import Vocoder
from audiovae.spectrogram import mel_filterbank

GRIFFIN_LIM_ITERATIONS = 32
_MOMENTUM = 0.99  # the fast variant (Perraudin et al., 2013)


def synthesize(
    log_mel: Tensor, num_frames: Tensor, vocoder: Vocoder | None, seed: int = 0
) -> Tensor:
    """Make sound of a batch of log-mels.

    Args:
        log_mel: `[batch, mel, frame]`, natural log of magnitude.
        num_frames: `[batch]`; frames beyond these are padding and become silence.
        vocoder: None for Griffin-Lim.
        seed: Of Griffin-Lim's first phase.

    Returns:
        `[batch, sample]`, hop samples a frame.
    """
    if vocoder is not None:
        waveform: Tensor = vocoder(log_mel, num_frames)
        return waveform
    config = SpectrogramConfig()
    waveform = griffin_lim(log_mel, config, seed=seed)
    position = torch.arange(waveform.shape[1], device=waveform.device)
    return waveform * (position[None] < num_frames[:, None] * config.hop_samples)


def griffin_lim(
    log_mel: Tensor,
    config: SpectrogramConfig,
    iterations: int = GRIFFIN_LIM_ITERATIONS,
    seed: int = 0,
) -> Tensor:
    """Find a waveform whose spectrogram fits, from random phase (Griffin and Lim, 1984).

    Args:
        log_mel: `[batch, mel, frame]`, natural log of magnitude.
        config: Frame settings.
        iterations: Steps of the fast variant.
        seed: Of the first phase: same seed, same sound.

    Returns:
        `[batch, sample]`, hop samples a frame.
    """
    from torchaudio.functional import griffinlim

    magnitude = _inverse_filterbank(config).to(log_mel.device) @ log_mel.exp()
    # The routine centres frame 0 on sample 0, this spectrogram half a hop later: one more frame
    # on each side, and half a hop cut off, line the two up.
    magnitude = functional.pad(magnitude.clamp(min=config.floor), (1, 1), mode="replicate")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        waveform: Tensor = griffinlim(
            magnitude,
            window=torch.hann_window(config.window_samples, device=log_mel.device),
            n_fft=config.window_samples,
            hop_length=config.hop_samples,
            win_length=config.window_samples,
            power=1.0,
            n_iter=iterations,
            momentum=_MOMENTUM,
            length=None,
            rand_init=True,
        )
    start = config.hop_samples // 2
    return waveform[:, start : start + log_mel.shape[2] * config.hop_samples]


@lru_cache(maxsize=4)
def _inverse_filterbank(config: SpectrogramConfig) -> Tensor:
    """Pseudo-inverse of the mel filters, `[bin, mel]`."""
    inverse: Tensor = torch.linalg.pinv(mel_filterbank(config).double()).float()
    return inverse
