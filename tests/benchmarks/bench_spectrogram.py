"""The log-mel against the bare Fourier transform of the same frames, on one core.

The front end must cost no more than twice its transform: what it adds are the window, the
magnitude and the mel filters. Ratios are of the best of interleaved repeats, in one run, in time
of the processor, so that a shared machine counts little.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import scipy.fft
import torch

from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import log_mel_spectrogram

_SECONDS = 60
_REPEATS = 15
_BUDGET = 2.0
"""Largest cost of the log-mel, in bare transforms by the faster library."""


def bench_log_mel_against_bare_rfft() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = _best_seconds()
    finally:
        torch.set_num_threads(threads)
    bare = min(seconds["torch rfft"], seconds["scipy rfft"])
    print(
        f"\n{'one core, ' + str(_SECONDS) + ' s of audio':34} {'ms':>8} {'x rfft':>8} {'x real':>8}"
    )
    for name, best in seconds.items():
        print(f"{name:34} {1000 * best:8.1f} {best / bare:8.2f} {_SECONDS / best:8.0f}")
    assert seconds["log-mel"] <= _BUDGET * bare


def _best_seconds() -> dict[str, float]:
    config = SpectrogramConfig()
    waveform = torch.randn(1, _SECONDS * config.sample_rate) * 0.1
    frames = waveform[0].unfold(0, config.window_samples, config.hop_samples).contiguous()
    array = frames.numpy()
    works: dict[str, Callable[[], object]] = {
        "torch rfft": lambda: torch.fft.rfft(frames),
        "scipy rfft": lambda: scipy.fft.rfft(array, axis=1, workers=1),
        "torch rfft, 128 frames at a time": lambda: [torch.fft.rfft(x) for x in frames.split(128)],
        "log-mel": lambda: log_mel_spectrogram(waveform, config),
    }
    assert array.dtype == np.float32
    best = dict.fromkeys(works, float("inf"))
    for _ in range(_REPEATS):
        for name, work in works.items():
            started = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - started)
    return best
