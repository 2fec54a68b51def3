"""Whether a phrase came out as another instrument plays it: distances to the true rendition.

Everything is measured on sounds of one loudness after one global lag, so that neither level nor
delay counts. The guards ask what must not change: pitch and the loudness contour.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiovae.analysis.metrics import SILENCE_LUFS, integrated_loudness_lufs
from audiovae.config import SpectrogramConfig
from audiovae.objectives.spectral import mel_distance
from audiovae.pitch import pitch_detector
from audiovae.spectrogram import heard_frames, log_mel_spectrogram

_LOUDNESS_LUFS = -23.0
_ENVELOPE_HOP_SECONDS = 0.005
_MAX_LAG_SECONDS = 0.1
_CONTOUR_SECONDS = 0.05
_CONTOUR_RANGE_DB = 50.0
_MIN_POWER = 1e-12
_SURE = 0.9  # confidence at which a pitch is believed
_CENTS_APART = 50.0
_SHRINKAGE = 0.3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TimbreDistances:
    """What was measured of one rendition against the true one.

    Attributes:
        mel_distance: As in `analysis.metrics`, after loudness and lag.
        contour: Correlation of the two loudness contours in decibels.
        pitch: Share of the truth's frames of sure pitch at which the pitch lies within 50 cents,
            octaves forgiven; None where the truth has no such frame or no tracker is there.
        centroid_hz: Mean spectral centroid of the rendition.
    """

    mel_distance: float
    contour: float
    pitch: float | None
    centroid_hz: float


@torch.inference_mode()
def timbre_distances(
    estimate: Tensor, truth: Tensor, sample_rate: int, *, with_pitch: bool = True
) -> TimbreDistances:
    """Measure a rendition against the true one, both `[sample]`.

    Args:
        estimate: What was made.
        truth: The same phrase on the wanted instrument.
        sample_rate: Of both, Hz.
        with_pitch: False for phrases of several voices, which have no one pitch.
    """
    wanted = at_one_loudness(truth, sample_rate)
    made = aligned(at_one_loudness(estimate, sample_rate), wanted, sample_rate)
    return TimbreDistances(
        mel_distance=float(mel_distance(made[None], wanted[None], sample_rate)),
        contour=contour_correlation(made, wanted, sample_rate),
        pitch=pitch_agreement(made, wanted, sample_rate) if with_pitch else None,
        centroid_hz=centroid_hz(made, sample_rate),
    )


def at_one_loudness(waveform: Tensor, sample_rate: int) -> Tensor:
    """A sound `[sample]` at -23 LUFS; what is silent stays so."""
    loudness = integrated_loudness_lufs(waveform[None], sample_rate)
    if loudness is None or loudness <= SILENCE_LUFS:
        return waveform
    return waveform * 10 ** ((_LOUDNESS_LUFS - loudness) / 20)


def aligned(estimate: Tensor, truth: Tensor, sample_rate: int) -> Tensor:
    """`estimate` shifted by the one lag, up to 0.1 s, at which its envelope fits best.

    Args:
        estimate: `[sample]`.
        truth: `[sample]`; the result has its length.
        sample_rate: Hz.
    """
    estimate = functional.pad(estimate, (0, max(0, len(truth) - len(estimate))))[: len(truth)]
    hop = round(_ENVELOPE_HOP_SECONDS * sample_rate)
    shapes = [_decibels(wave, hop, 2 * hop) for wave in (estimate, truth)]
    reach = round(_MAX_LAG_SECONDS / _ENVELOPE_HOP_SECONDS)
    lags = range(-reach, reach + 1)
    errors = [_error_at_lag(shapes[0], shapes[1], lag) for lag in lags]
    lag = hop * (int(np.argmin(errors)) - reach)
    moved = functional.pad(estimate, (max(0, -lag), max(0, lag)))
    return moved[max(0, lag) : max(0, lag) + len(truth)]


def _error_at_lag(estimate: Tensor, truth: Tensor, lag: int) -> float:
    """Mean |difference| where `estimate`, read `lag` frames later, and `truth` overlap."""
    later, earlier = estimate[max(0, lag) :], truth[max(0, -lag) :]
    count = min(len(later), len(earlier))
    return float((later[:count] - earlier[:count]).abs().mean())


def contour_correlation(estimate: Tensor, truth: Tensor, sample_rate: int) -> float:
    """Correlation of loudness over time, in decibels down to 50 below the loudest.

    Args:
        estimate: `[sample]`.
        truth: `[sample]`.
        sample_rate: Hz.
    """
    hop = round(_CONTOUR_SECONDS / 2 * sample_rate)
    contours = torch.stack([_decibels(wave, hop, 2 * hop) for wave in (estimate, truth)])
    if float(contours.std(dim=1).min()) == 0:
        return 0.0
    return float(torch.corrcoef(contours)[0, 1])


def centroid_hz(waveform: Tensor, sample_rate: int) -> float:
    """Centre of gravity of the mean magnitude spectrum of a sound `[sample]`."""
    window = torch.hann_window(2048)
    spectrum = torch.stft(waveform, 2048, 512, window=window, return_complex=True).abs()
    mean = spectrum.mean(dim=1)  # [bin]
    hertz = torch.linspace(0, sample_rate / 2, len(mean))
    return float((hertz * mean).sum() / mean.sum().clamp(min=_MIN_POWER))


def has_pitch_tracker() -> bool:
    """Whether the optional package swift-f0 is installed."""
    return importlib.util.find_spec("swift_f0") is not None


def pitch_agreement(estimate: Tensor, truth: Tensor, sample_rate: int) -> float | None:
    """Share of the truth's voiced frames at which the pitch is right; see `TimbreDistances`."""
    if not has_pitch_tracker():
        return None
    (found, _), (wanted, sure) = (_pitch(wave, sample_rate) for wave in (estimate, truth))
    count = min(len(found), len(wanted))
    voiced = sure[:count] > _SURE
    if not voiced.any():
        return None
    cents = 1200 * np.log2(found[:count][voiced] / wanted[:count][voiced])
    off = np.abs((cents + 600) % 1200 - 600)
    return float((off <= _CENTS_APART).mean())


def _pitch(waveform: Tensor, sample_rate: int) -> tuple[Floats, Floats]:
    """Hz and confidence of each frame."""
    result = pitch_detector().detect(waveform.numpy(), sample_rate)
    return result.pitch_hz, result.confidence


def _decibels(waveform: Tensor, hop: int, window: int) -> Tensor:
    """`[frame]`: level over time, at most 50 dB below its highest."""
    power = functional.avg_pool1d(waveform.square()[None, None], window, hop)[0, 0]
    decibels = 10 * power.clamp(min=_MIN_POWER).log10()
    return decibels.clamp(min=float(decibels.max()) - _CONTOUR_RANGE_DB)


class InstrumentClassifier:
    """Tells instruments apart by the mean and the spread of their log-mel.

    Linear discriminants with a covariance shrunk towards a multiple of the identity: few clips are
    enough, and their log-odds are linear in what was heard.
    """

    def __init__(self, clips: Sequence[Tensor], labels: Sequence[int], sample_rate: int) -> None:
        """Learn from clips `[sample]` of every instrument."""
        self._rate = sample_rate
        features = np.stack([self._features(clip) for clip in clips])
        marks = np.array(labels)
        self._centre = features.mean(axis=0)
        self._scale = features.std(axis=0) + 1e-3
        scaled = (features - self._centre) / self._scale
        means = np.stack([scaled[marks == label].mean(axis=0) for label in range(marks.max() + 1)])
        within = scaled - means[marks]
        covariance = within.T @ within / len(within)
        spread = np.diag(np.full(len(covariance), np.trace(covariance) / len(covariance)))
        inverse = np.linalg.inv((1 - _SHRINKAGE) * covariance + _SHRINKAGE * spread)
        self._weights = inverse @ means.T
        self._offsets = -0.5 * np.sum(means.T * self._weights, axis=0)

    def scores(self, clip: Tensor) -> Floats:
        """`[instrument]`: log-odds up to a constant of a clip `[sample]`."""
        scaled = (self._features(clip) - self._centre) / self._scale
        scores: Floats = scaled @ self._weights + self._offsets
        return scores

    def __call__(self, clip: Tensor) -> int:
        """The likeliest instrument of a clip `[sample]`."""
        return int(np.argmax(self.scores(clip)))

    def _features(self, clip: Tensor) -> Floats:
        config = SpectrogramConfig(sample_rate=self._rate, max_hz=self._rate / 2)
        log_mel = log_mel_spectrogram(at_one_loudness(clip, self._rate)[None], config)[0]
        heard = log_mel[:, heard_frames(log_mel)]
        deviation = heard.std(dim=1, correction=0)
        features: Floats = torch.cat([heard.mean(dim=1), deviation]).double().numpy()
        return features if math.isfinite(features.sum()) else np.zeros_like(features)
