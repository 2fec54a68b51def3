"""How far a sound is from the sound it should be: distances that agree with the literature.

All of them compare two waveforms `[channel, sample]` of one length and rate, channel by channel
where a channel has a meaning, and are means over channels. A distance that does not exist (the
loudness of silence, PESQ of music) is None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyloudnorm
import torch
from torch import Tensor
from torch.nn import functional

from audiovae.analysis.opinion import pesq_wb_score, visqol_score
from audiovae.config import SpectrogramConfig
from audiovae.errors import ShapeError
from audiovae.objectives.spectral import MEL_DISTANCE_WINDOWS, mel_and_short_distance
from audiovae.spectrogram import hann_window, log_mel_spectrogram, log_mel_to_db

STFT_DISTANCE_WINDOWS = (2048, 512)
MAX_SI_SDR_DB = 100.0
"""Bound of SI-SDR either way: beyond it float32 has nothing to say."""
SILENCE_LUFS = -70.0
"""The absolute gate of BS.1770: nothing is quieter."""
LOUDNESS_BLOCK_SECONDS = 0.4
"""Loudness is of blocks of this length: that of a shorter sound is not defined."""

_MAGNITUDE_FLOOR = 1e-5
_MAX_LOUDNESS_CHANNELS = 5


@dataclass(frozen=True)
class Distances:
    """What was measured of one sound against its original.

    Attributes:
        mel_distance: Multi-scale mel distance of the DAC paper (arXiv:2306.06546): the sum over
            windows of 32 to 2048 samples of the mean |difference| of log10 mel magnitudes.
        short: The same over windows up to 256 alone, which see smeared onsets and wrong phase.
        log_mel_db: Mean |difference| of the models' own log-mel.
        stft_distance: See `stft_distance`.
        si_sdr_db: See `si_sdr_db`; None if the original is silent.
        loudness_error_lu: See `loudness_error_lu`; None for less than 0.4 s.
        visqol: ViSQOL v3 in audio mode, 1 to 4.73 (arXiv:2004.09584).
        pesq_wb: PESQ-WB of speech, 1 to 4.64 (ITU-T P.862.2).
    """

    mel_distance: float
    short: float
    log_mel_db: float
    stft_distance: float
    si_sdr_db: float | None
    loudness_error_lu: float | None
    visqol: float | None = None
    pesq_wb: float | None = None


@torch.inference_mode()
def measure(
    estimate: Tensor,
    target: Tensor,
    sample_rate: int,
    *,
    is_speech: bool = False,
    with_visqol: bool = True,
) -> Distances:
    """Measure a sound against its original.

    Args:
        estimate: `[channel, sample]`, float32.
        target: `[channel, sample]`, float32: the original.
        sample_rate: Of both, Hz.
        is_speech: PESQ means something only for speech.
        with_visqol: It takes longer than all the others together.

    Raises:
        ShapeError: If the two are not `[channel, sample]` of one shape.
    """
    _require_same_shape(estimate, target)
    mel_distance, short = mel_and_short_distance(
        _at_least_a_window(estimate), _at_least_a_window(target), sample_rate
    )
    return Distances(
        mel_distance=mel_distance,
        short=short,
        log_mel_db=log_mel_db(estimate, target, sample_rate),
        stft_distance=stft_distance(estimate, target),
        si_sdr_db=si_sdr_db(estimate, target),
        loudness_error_lu=loudness_error_lu(estimate, target, sample_rate),
        visqol=visqol_score(estimate, target, sample_rate) if with_visqol else None,
        pesq_wb=pesq_wb_score(estimate, target, sample_rate) if is_speech else None,
    )


def log_mel_db(estimate: Tensor, target: Tensor, sample_rate: int) -> float:
    """Mean |difference| of the log-mel that the models see, decibels.

    Args:
        estimate: `[channel, sample]`.
        target: `[channel, sample]`.
        sample_rate: Hz; the bands reach to half of it.
    """
    config = SpectrogramConfig(sample_rate=sample_rate, max_hz=sample_rate / 2)
    estimated, wanted = (log_mel_spectrogram(wave, config) for wave in (estimate, target))
    return float(log_mel_to_db((estimated - wanted).abs()).mean())


def stft_distance(estimate: Tensor, target: Tensor) -> float:
    """Multi-scale STFT distance, as the DAC paper reports it (arXiv:2306.06546).

    The sum over windows of 2048 and 512 samples (Hann, hop a quarter) of the mean |difference|
    of log10 power (of magnitudes of 1e-5 or more), and of the mean |difference| of magnitude
    (Engel et al., DDSP, arXiv:2001.04643). It does not depend on the sample rate.

    Args:
        estimate: `[channel, sample]`.
        target: `[channel, sample]`.
    """
    total = 0.0
    for window in STFT_DISTANCE_WINDOWS:
        estimated, wanted = (_magnitude(wave, window) for wave in (estimate, target))
        logs = [size.clamp(min=_MAGNITUDE_FLOOR).square().log10() for size in (estimated, wanted)]
        total += float((logs[0] - logs[1]).abs().mean() + (estimated - wanted).abs().mean())
    return total


def si_sdr_db(estimate: Tensor, target: Tensor) -> float | None:
    """Scale-invariant signal-to-distortion ratio, decibels (arXiv:1811.02508).

    It needs the very waveform, phase and all, so it is far below 0 for what is made from a
    magnitude spectrogram, however alike the two sound.

    Args:
        estimate: `[channel, sample]`.
        target: `[channel, sample]`.

    Returns:
        Mean over the channels that have sound, within `MAX_SI_SDR_DB`; None if none has.
    """
    ratios = [
        _one_si_sdr_db(mine, other)
        for mine, other in zip(estimate.double(), target.double(), strict=True)
        if float((other - other.mean()).abs().max()) > 0
    ]
    return sum(ratios) / len(ratios) if ratios else None


def loudness_error_lu(estimate: Tensor, target: Tensor, sample_rate: int) -> float | None:
    """|Difference| of integrated loudness (ITU-R BS.1770-4), LU.

    Args:
        estimate: `[channel, sample]`.
        target: `[channel, sample]`.
        sample_rate: Hz.

    Returns:
        None if it is not defined: below 0.4 s, or for more than five channels.
    """
    estimated = integrated_loudness_lufs(estimate, sample_rate)
    wanted = integrated_loudness_lufs(target, sample_rate)
    return None if estimated is None or wanted is None else abs(estimated - wanted)


def integrated_loudness_lufs(waveform: Tensor, sample_rate: int) -> float | None:
    """Integrated loudness (ITU-R BS.1770-4), at least `SILENCE_LUFS`.

    Args:
        waveform: `[channel, sample]`: left, right, centre, left and right surround.
        sample_rate: Hz.

    Returns:
        None if it is not defined: below 0.4 s, or for more than five channels.
    """
    channels, samples = waveform.shape
    if channels > _MAX_LOUDNESS_CHANNELS or samples < LOUDNESS_BLOCK_SECONDS * sample_rate:
        return None
    if not waveform.any():
        return SILENCE_LUFS
    meter = pyloudnorm.Meter(sample_rate)
    loudness = float(meter.integrated_loudness(waveform.double().cpu().numpy().T))
    return max(loudness, SILENCE_LUFS) if math.isfinite(loudness) else SILENCE_LUFS


def _one_si_sdr_db(estimate: Tensor, target: Tensor) -> float:
    estimate, target = estimate - estimate.mean(), target - target.mean()
    explained = (estimate @ target) / (target @ target) * target
    signal = float(explained.square().sum())
    noise = float((estimate - explained).square().sum())
    if signal == 0:
        return -MAX_SI_SDR_DB
    ratio = 10 * math.log10(signal / noise) if noise else MAX_SI_SDR_DB
    return min(max(ratio, -MAX_SI_SDR_DB), MAX_SI_SDR_DB)


def _magnitude(waveform: Tensor, window: int) -> Tensor:
    """`[channel, bin, frame]`."""
    shape = hann_window(window, waveform.device)
    padded = _at_least_a_window(waveform)
    return torch.stft(padded, window, window // 4, window=shape, return_complex=True).abs()


def _at_least_a_window(waveform: Tensor) -> Tensor:
    """Short sounds with zeros to the longest window, which a spectrum needs."""
    return functional.pad(waveform, (0, max(0, max(MEL_DISTANCE_WINDOWS) - waveform.shape[1])))


def _require_same_shape(estimate: Tensor, target: Tensor) -> None:
    if estimate.ndim != 2 or estimate.shape != target.shape or estimate.shape[1] == 0:
        raise ShapeError(
            "expected two waveforms [channel, sample] of one shape, got "
            f"{list(estimate.shape)} and {list(target.shape)}; cut or pad one to the other"
        )
