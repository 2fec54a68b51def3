"""Opinion scores that a program predicts, where an optional package for it is installed.

ViSQOL comes from `visqol` (`pip install --no-deps visqol-python libsvm-official`), PESQ from
`pesq`. Without its package a score is None.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiovae.audio import resample

_VISQOL_RATE = 48_000
_PESQ_RATE = 16_000
_MIN_PESQ_SECONDS = 0.25
# Numba's usual threading layer, which ViSQOL runs on, ends the process if two threads enter it.
_VISQOL_LOCK = threading.Lock()


def has_visqol() -> bool:
    """Whether the optional package `visqol` is installed."""
    return _visqol() is not None


def has_pesq() -> bool:
    """Whether the optional package `pesq` is installed."""
    return _pesq() is not None


def visqol_score(estimate: Tensor, target: Tensor, sample_rate: int) -> float | None:
    """ViSQOL v3 in audio mode (48 kHz, channels mixed), a predicted opinion score.

    Args:
        estimate: `[channel, sample]`.
        target: `[channel, sample]`.
        sample_rate: Hz.

    Returns:
        None without the package, for silence, or if the sound is too short.
    """
    api = _visqol()
    degraded, reference = (_mono(wave, sample_rate, _VISQOL_RATE) for wave in (estimate, target))
    if api is None or not reference.any():
        return None
    with _VISQOL_LOCK, np.errstate(all="ignore"):
        _one_thread()
        try:
            score = float(api.measure_from_arrays(reference, degraded, _VISQOL_RATE).moslqo)
        except ValueError:  # shorter than one of its patches
            return None
    return score if math.isfinite(score) else None


def pesq_wb_score(estimate: Tensor, target: Tensor, sample_rate: int) -> float | None:
    """PESQ-WB (16 kHz, channels mixed), a predicted opinion score of speech.

    Args:
        estimate: `[channel, sample]`.
        target: `[channel, sample]`.
        sample_rate: Hz.

    Returns:
        None without the package, or where it finds no speech.
    """
    score = _pesq()
    degraded, reference = (_mono(wave, sample_rate, _PESQ_RATE) for wave in (estimate, target))
    too_short = len(reference) < _MIN_PESQ_SECONDS * _PESQ_RATE
    if score is None or too_short or not reference.any():
        return None
    try:
        return float(score(_PESQ_RATE, reference, degraded, "wb"))
    except RuntimeError:  # no utterances
        return None


@lru_cache(maxsize=1)
def _visqol() -> Any:
    """ViSQOL, ready in audio mode; None if it is not installed."""
    try:
        api = importlib.import_module("visqol").VisqolApi()
    except ImportError:
        return None
    api.create(mode="audio")
    return api


@lru_cache(maxsize=1)
def _pesq() -> Callable[[int, NDArray[Any], NDArray[Any], str], float] | None:
    try:
        score: Callable[[int, NDArray[Any], NDArray[Any], str], float]
        score = importlib.import_module("pesq").pesq
    except ImportError:
        return None
    return score


def _one_thread() -> None:
    """Numba spreads one clip over all cores, which takes longer and disturbs the other clips."""
    try:
        importlib.import_module("numba").set_num_threads(1)
    except ImportError:
        return


def _mono(waveform: Tensor, sample_rate: int, wanted_rate: int) -> NDArray[np.float64]:
    mixed = waveform.mean(dim=0, keepdim=True).cpu().numpy()
    resampled: NDArray[np.float64] = resample(mixed, sample_rate, wanted_rate)[0].astype(np.float64)
    return resampled
