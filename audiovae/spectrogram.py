"""Waveform to natural-log mel spectrogram: one definition, shared by every model.

The definition (44.1 kHz, window 2048, hop 512, 128 Slaney bands on the magnitude, floor 1e-5,
reflect padding of `(window - hop) / 2`, no centring) is the one of the public BigVGAN-v2
44 kHz vocoders (Lee et al., 2023, arXiv:2206.04658), so that weights can be exchanged.

A frame is a pure function of its samples: frames are computed in blocks of one fixed shape,
so a frame has the same bits whichever window it is computed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError, ShapeError

_BLOCK_FRAMES_CPU = 128  # 128 frames x 2048 samples x 4 bytes: about a core's level-2 cache
_BLOCK_FRAMES_GPU = 8192
_MIN_POWER = 1e-20
_HEARD_NATS = 4.0  # 35 dB
_LINEAR_MEL_HZ = 200 / 3
_LOG_FROM_HZ = 1000.0
_LOG_MEL_NATS = math.log(6.4) / 27
_BANDS_PER_GROUP = 16  # neighbouring bands share a range of bins: 8 small products, not one large

ReadSamples = Callable[[int, int], NDArray[np.float32]]


def num_frames(num_samples: int, config: SpectrogramConfig) -> int:
    """Frames of a signal of `num_samples` samples: a whole number of hops, at least a window's.

    >>> num_frames(44_100, SpectrogramConfig()), num_frames(1, SpectrogramConfig())
    (87, 4)
    """
    return padded_samples(num_samples, config) // config.hop_samples


def padded_samples(num_samples: int, config: SpectrogramConfig) -> int:
    """Length after zero-padding to a whole hop, and a short signal to a window."""
    hop = config.hop_samples
    return max(-(-num_samples // hop) * hop, config.window_samples)


def log_mel_spectrogram(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """Turn a waveform into a natural-log mel spectrogram.

    Magnitudes are floored before the log, so digital silence is the constant
    `config.log_floor` and no later stage meets `-inf`.

    Args:
        waveform: `[batch, sample]`, float32 in [-1, 1], at `config.sample_rate` Hz.
        config: Frame and mel settings; must equal the vocoder's.

    Returns:
        `[batch, mel, frame]`, natural log of magnitude, where `frame = num_frames(sample)`.

    Raises:
        ShapeError: If `waveform` is not float32 `[batch, sample]` or has no samples.

    Example:
        >>> log_mel_spectrogram(torch.zeros(2, 44_100), SpectrogramConfig()).shape
        torch.Size([2, 128, 87])
    """
    if waveform.ndim != 2 or waveform.shape[1] == 0 or waveform.dtype != torch.float32:
        raise ShapeError(
            "expected a float32 waveform [batch, sample] with samples, "
            f"got {waveform.dtype} {list(waveform.shape)}; "
            "add the batch axis with waveform[None], the type with waveform.float()"
        )
    missing = padded_samples(waveform.shape[1], config) - waveform.shape[1]
    padded = functional.pad(waveform, (0, missing)) if missing else waveform
    margin = _margin(config)
    padded = functional.pad(padded[:, None], (margin, margin), mode="reflect")[:, 0]
    return _frames_to_log_mel(padded, config)


def log_mel_window(
    read: ReadSamples,
    num_samples: int,
    first_frame: int,
    last_frame: int,
    config: SpectrogramConfig,
) -> Tensor:
    """Log-mel of the frames `[first_frame, last_frame)`, bit-equal to the whole signal's.

    Args:
        read: `read(start, stop)` gives the samples `[channel, sample]` of that range, which lies
            inside `[0, num_samples]` and is empty for a frame of nothing but padding.
        num_samples: Length of the whole signal.
        first_frame: First frame, from 0.
        last_frame: One past the last frame, at most `num_frames(num_samples)`.
        config: Frame and mel settings.

    Returns:
        `[channel, mel, frame]` on the CPU.

    Raises:
        ShapeError: If the frame range is empty or leaves the signal.
    """
    if not 0 <= first_frame < last_frame <= num_frames(num_samples, config):
        raise ShapeError(
            f"expected frames inside [0, {num_frames(num_samples, config)}), "
            f"got [{first_frame}, {last_frame})"
        )
    margin, hop = _margin(config), config.hop_samples
    total = padded_samples(num_samples, config)
    wanted_start, wanted_stop = first_frame * hop - margin, last_frame * hop + margin
    start, stop = max(wanted_start, 0), min(wanted_stop, total)
    samples = torch.from_numpy(read(min(start, num_samples), min(stop, num_samples)))
    samples = functional.pad(samples, (0, stop - start - samples.shape[1]))
    reflect = (start - wanted_start, wanted_stop - stop)
    samples = functional.pad(samples[:, None], reflect, mode="reflect")[:, 0]
    return _frames_to_log_mel(samples, config)


def heard_frames(log_mel: Tensor) -> Tensor:
    """Which frames of a clip are at most 35 dB below its loudest: `[..., frame]`.

    Args:
        log_mel: `[..., mel, frame]`, natural log of magnitude; -inf where there is no signal.
    """
    level = 0.5 * torch.logsumexp(2 * log_mel, dim=-2)
    return level > level.amax(dim=-1, keepdim=True) - _HEARD_NATS


def log_mel_to_db(log_mel: Tensor) -> Tensor:
    """Natural log of magnitude to decibels (20 log10)."""
    decibels: Tensor = log_mel * (20.0 / np.log(10.0))
    return decibels


# Constants are made outside inference mode whoever asks first: a tensor made inside it can never
# take part in a gradient.


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def mel_filterbank(config: SpectrogramConfig) -> Tensor:
    """Slaney-normalised triangular filters on the Slaney scale, `[mel, bin]`.

    Raises:
        ConfigError: If the installed torchaudio is of another torch.
    """
    try:
        from torchaudio.functional import melscale_fbanks
    except (ImportError, OSError) as error:  # its binary is of another torch
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"expected a torchaudio that loads beside torch {torch.__version__}, got: {reason}; "
            "let `pip install -e .` choose both"
        ) from None

    filters: Tensor = melscale_fbanks(
        n_freqs=config.num_bins,
        f_min=config.min_hz,
        f_max=config.max_hz,
        n_mels=config.num_mels,
        sample_rate=config.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters.T.contiguous()


def mel_edges(config: SpectrogramConfig) -> Tensor:
    """Corners of the mel filters, `[mel + 2]`, in bins, float64.

    Filter `m` begins at corner `m`, is highest at `m + 1` and ends at `m + 2`. Even steps of the
    Slaney scale: linear up to 1 kHz, then 27 mels for a factor of 6.4.
    """
    low, high = (_slaney_mel(hz) for hz in (config.min_hz, config.max_hz))
    mels = torch.linspace(low, high, config.num_mels + 2, dtype=torch.float64)
    below = mels * _LINEAR_MEL_HZ
    above = _LOG_FROM_HZ * ((mels - _LOG_FROM_HZ / _LINEAR_MEL_HZ) * _LOG_MEL_NATS).exp()
    hz = torch.where(below < _LOG_FROM_HZ, below, above)
    return hz * config.window_samples / config.sample_rate


def _slaney_mel(hz: float) -> float:
    if hz < _LOG_FROM_HZ:
        return hz / _LINEAR_MEL_HZ
    return _LOG_FROM_HZ / _LINEAR_MEL_HZ + math.log(hz / _LOG_FROM_HZ) / _LOG_MEL_NATS


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def inverse_mel_filterbank(config: SpectrogramConfig) -> Tensor:
    """Pseudo-inverse of the mel filters, `[bin, mel]`."""
    inverse: Tensor = torch.linalg.pinv(mel_filterbank(config).double()).float()
    return inverse


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def hann_window(length: int, device: torch.device) -> Tensor:
    """Periodic Hann window `[sample]`."""
    return torch.hann_window(length, periodic=True, device=device)


@dataclass(frozen=True)
class _BandGroup:
    """Neighbouring mel bands and the range of bins outside which their filters are zero."""

    first_bin: int
    last_bin: int
    weights: Tensor  # [bin, band]


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _band_groups(config: SpectrogramConfig, device: torch.device) -> tuple[_BandGroup, ...]:
    filters = mel_filterbank(config)
    groups = []
    for first in range(0, config.num_mels, _BANDS_PER_GROUP):
        last = min(first + _BANDS_PER_GROUP, config.num_mels)
        used = (filters[first:last] > 0).any(dim=0).nonzero().flatten().tolist()
        low, high = (used[0], used[-1] + 1) if used else (0, 1)  # bands between two bins are empty
        weights = filters[first:last, low:high].T.contiguous().to(device)
        groups.append(_BandGroup(low, high, weights))
    return tuple(groups)


def _margin(config: SpectrogramConfig) -> int:
    return (config.window_samples - config.hop_samples) // 2


def _frames_to_log_mel(padded: Tensor, config: SpectrogramConfig) -> Tensor:
    """`[channel, sample]` with its margins to `[channel, mel, frame]`, block by block."""
    frames = padded.unfold(1, config.window_samples, config.hop_samples)  # a view
    total = frames.shape[0] * frames.shape[1]
    size = _BLOCK_FRAMES_CPU if padded.device.type == "cpu" else min(_BLOCK_FRAMES_GPU, total)
    window = hann_window(config.window_samples, padded.device)
    groups = _band_groups(config, padded.device)
    blocks = []
    with torch.autocast(padded.device.type, enabled=False):  # half precision has no place here
        for start in range(0, total, size):
            block = _flat_rows(frames, start, min(start + size, total)) * window
            blocks.append(_block_to_mel(block, size, groups))
    log_mel = torch.cat(blocks).clamp_(min=config.floor).log_()
    shape = (padded.shape[0], -1, config.num_mels)
    return log_mel.reshape(shape).transpose(1, 2).contiguous()


def _flat_rows(frames: Tensor, start: int, stop: int) -> Tensor:
    """Rows of `[channel, frame, sample]` as of `flatten(0, 1)`, which would copy all of them."""
    count = frames.shape[1]
    rows = [
        frames[channel, max(0, start - channel * count) : stop - channel * count]
        for channel in range(start // count, -(-stop // count))
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _block_to_mel(block: Tensor, size: int, groups: tuple[_BandGroup, ...]) -> Tensor:
    """`[frame, sample]`, windowed, to mel magnitudes `[frame, mel]`."""
    count = block.shape[0]
    if count < size:  # always one shape: a product's bits can depend on its number of rows
        block = functional.pad(block, (0, 0, 0, size - count))
    parts = torch.view_as_real(torch.fft.rfft(block))
    # sqrt(re^2 + im^2) by hand: several times faster than abs() of a complex tensor. The bound,
    # far below the floor, keeps the gradient of silence finite.
    power = parts[..., 0].square().addcmul_(parts[..., 1], parts[..., 1])
    magnitude = power.clamp_(min=_MIN_POWER).sqrt_()
    bands = [magnitude[:, group.first_bin : group.last_bin] @ group.weights for group in groups]
    return torch.cat(bands, dim=1)[:count]
