"""Hostile signals and what must be left of them: for the sound checks and their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.compressed import quality_lambda
from audiovae.reconstruct import Reconstructor
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.stretches import Coding, Signal, Stopwatch, Stretch
from tests.tones import SAMPLE_RATE, noise

SAMPLES = 2 * SAMPLE_RATE
CLICK_AT = SAMPLE_RATE + 123
SWEEP_HZ = (200.0, 8000.0)
TONE_HZ = 441.0
HIGH_TONES_HZ = (3500.0, 5001.0, 6745.0, 9000.0, 12345.0)
CUTOFF_HZ = 4000.0
_TINY = 1e-20


@dataclass(frozen=True)
class Probe:
    """A signal `[sample]`, and a figure of how far it came back from what it is: less is better."""

    name: str
    figure: str
    signal: Tensor
    measure: Callable[[Tensor], float]


def probes() -> list[Probe]:
    """Every probe; 2 s each."""
    seconds = torch.arange(SAMPLES, dtype=torch.float64) / SAMPLE_RATE
    tone = (2 * math.pi * TONE_HZ * seconds).sin().float()
    click = torch.zeros(SAMPLES)
    click[CLICK_AT] = 0.9
    white = noise(SAMPLES, level=0.1)
    silence = torch.zeros(SAMPLES)
    return [
        Probe("digital silence", "peak, dBFS", silence, peak_db),
        Probe("click", "energy farther than 6 ms from it, %", click, click_smear_percent),
        Probe("click", "peak is off by, ms", click, click_lag_ms),
        Probe("sweep", "median error of its frequency, cents", sweep(), sweep_error_cents),
        Probe("white noise", "deviation of third octaves, dB", white, band_deviation_db),
        Probe("noise below 4 kHz", "level above 5 kHz, dB", low_noise(), stop_band_db),
        Probe(
            "clipped sine", "deviation of harmonics, dB", (3 * tone).clamp(-0.8, 0.8), harmonics_db
        ),
        Probe("high tones", "deviation of their levels, dB", high_tones(), tones_db),
        Probe("DC of 0.5", "level of the rest, dB", torch.full((SAMPLES,), 0.5), beside_dc_db),
    ]


def copied(signal: Tensor, model: Model) -> Tensor:
    """Copy synthesis `[sample]`: what the vocoder makes of the true log-mel."""
    config = model.config.spectrogram
    log_mel = log_mel_spectrogram(signal[None], config)
    coding = Coding(Stretch.whole(len(signal), config), (0,), (log_mel[0],))
    return torch.from_numpy(Reconstructor(model).sound([coding], Stopwatch())[0][0])


def coded(signal: Tensor, model: Model, quality: int) -> Tensor:
    """What `signal` decodes to after compression, `[sample]`."""
    config = model.config.spectrogram
    stretch = Stretch.whole(len(signal), config)
    reconstructor, watch = Reconstructor(model), Stopwatch()
    one = Signal(stretch, signal[None].numpy(), config, 0, quality_lambda(model, quality))
    return torch.from_numpy(reconstructor.sound(reconstructor.code([one], watch), watch)[0][0])


def sweep() -> Tensor:
    """A sine that rises by the same interval in every second."""
    low, high = SWEEP_HZ
    rise = math.log(high / low) * SAMPLE_RATE / SAMPLES  # a second
    seconds = torch.arange(SAMPLES, dtype=torch.float64) / SAMPLE_RATE
    phase = 2 * math.pi * low / rise * (torch.exp(rise * seconds) - 1)
    return (0.5 * phase.sin()).float()


def high_tones() -> Tensor:
    """Steady sines far apart, one louder than the next, like the partials of a bell."""
    seconds = torch.arange(SAMPLES, dtype=torch.float64) / SAMPLE_RATE
    sines = [
        0.3 / (1 + place) * (2 * math.pi * hz * seconds).sin()
        for place, hz in enumerate(HIGH_TONES_HZ)
    ]
    return torch.stack(sines).sum(dim=0).float()


def low_noise() -> Tensor:
    """White noise with nothing above the cut-off."""
    spectrum = torch.fft.rfft(noise(SAMPLES, level=0.1))
    spectrum[torch.fft.rfftfreq(SAMPLES, 1 / SAMPLE_RATE) > CUTOFF_HZ] = 0
    return torch.fft.irfft(spectrum, n=SAMPLES)


def peak_db(sound: Tensor) -> float:
    return _db(float(sound.abs().max()) ** 2)


def click_smear_percent(sound: Tensor) -> float:
    reach = round(0.006 * SAMPLE_RATE)
    near = sound[CLICK_AT - reach : CLICK_AT + reach + 1].square().sum()
    return 100 * (1 - float(near / sound.square().sum().clamp(min=_TINY)))


def click_lag_ms(sound: Tensor) -> float:
    return 1000 * abs(int(sound.abs().argmax()) - CLICK_AT) / SAMPLE_RATE


def sweep_error_cents(sound: Tensor) -> float:
    size, hop = 4096, 1024
    window = torch.hann_window(size)
    frames = sound.unfold(0, size, hop) * window
    spectrum = torch.fft.rfft(frames, n=4 * size).abs()
    found = spectrum.argmax(dim=1) * SAMPLE_RATE / (4 * size)
    low, high = SWEEP_HZ
    middle = (torch.arange(len(frames)) * hop + size / 2) / SAMPLES
    true = low * (high / low) ** middle
    return float((1200 * torch.log2(found.clamp(min=1) / true)).abs().median())


def band_deviation_db(sound: Tensor) -> float:
    """Mean |difference| to flat over third octaves from 100 Hz to 16 kHz, level included."""
    power, frequency = _spectrum(sound)
    flat, _ = _spectrum(noise(SAMPLES, level=0.1))
    edges = [100 * 2 ** (i / 3) for i in range(23)]
    bands = [(frequency >= a) & (frequency < b) for a, b in pairwise(edges)]
    errors = [abs(_db(float(power[b].mean())) - _db(float(flat[b].mean()))) for b in bands]
    return sum(errors) / len(errors)


def stop_band_db(sound: Tensor) -> float:
    """Density above 5 kHz against that of the pass band."""
    power, frequency = _spectrum(sound)
    above, below = power[frequency > 5000].mean(), power[frequency < CUTOFF_HZ].mean()
    return _db(float(above / below))


def harmonics_db(sound: Tensor) -> float:
    """Of the first six odd harmonics."""
    return _levels_error_db(sound, "clipped sine", [TONE_HZ * n for n in (1, 3, 5, 7, 9, 11)])


def tones_db(sound: Tensor) -> float:
    return _levels_error_db(sound, "high tones", HIGH_TONES_HZ)


def _levels_error_db(sound: Tensor, sent: str, partials: Sequence[float]) -> float:
    """Mean |difference| of partials' levels to those of the probe that was sent in."""
    expected = next(probe.signal for probe in probes() if probe.name == sent)
    levels = [
        [_db(float(_near(power, frequency, hz))) for hz in partials]
        for power, frequency in (_spectrum(sound), _spectrum(expected))
    ]
    return sum(abs(a - b) for a, b in zip(*levels, strict=True)) / len(partials)


def beside_dc_db(sound: Tensor) -> float:
    """Everything above 40 Hz, away from the ends, against the energy that was sent in."""
    inner = sound[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]
    windowed = torch.fft.rfft(inner * torch.hann_window(len(inner))).abs().square()
    frequency = torch.fft.rfftfreq(len(inner), 1 / SAMPLE_RATE)
    rest = windowed[frequency > 40].sum() / len(inner) ** 2 * 2 / 0.375
    return _db(float(rest) / 0.25)


def _spectrum(sound: Tensor) -> tuple[Tensor, Tensor]:
    """Power by frequency, averaged over time; the first and last quarter second are left out."""
    size = 4096
    inner = sound[SAMPLE_RATE // 4 : -SAMPLE_RATE // 4]
    frames = inner.unfold(0, size, size // 4) * torch.hann_window(size)
    power = torch.fft.rfft(frames).abs().square().mean(dim=0)
    return power, torch.fft.rfftfreq(size, 1 / SAMPLE_RATE)


def _near(power: Tensor, frequency: Tensor, hz: float) -> Tensor:
    return power[(frequency - hz).abs() < 40].sum()


def _db(power: float) -> float:
    return 10 * math.log10(max(power, _TINY))
