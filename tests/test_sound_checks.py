"""The model that ships, on signals that are hard to give back, and where its windows meet."""

from __future__ import annotations

import pytest
import torch

from audiovae.checkpoint import Model, load_model
from audiovae.chunks import STEP_FRAMES
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.synthesis import Synthesizer
from tests.probes import Probe, coded, copied, probes
from tests.seams import SEAM_SAMPLES, phrases, seam_ranks

QUALITY = 6
LIMITS = {
    ("digital silence", "peak, dBFS"): (-80.0, -80.0),
    ("click", "energy farther than 6 ms from it, %"): (2.0, 5.0),
    ("click", "peak is off by, ms"): (4.0, 4.0),
    ("sweep", "median error of its frequency, cents"): (25.0, 50.0),
    ("white noise", "deviation of third octaves, dB"): (2.5, 5.0),
    ("noise below 4 kHz", "level above 5 kHz, dB"): (-80.0, -80.0),
    ("clipped sine", "deviation of harmonics, dB"): (7.0, 20.0),
    ("high tones", "deviation of their levels, dB"): (2.0, 25.0),
    ("DC of 0.5", "level of the rest, dB"): (-40.0, -25.0),
}
"""Largest figure of each probe: by copy synthesis, and when coded at `QUALITY`."""
MAX_SEAM_RANK = 0.99
"""A seam may not be rougher than all but one in a hundred other places of the kind."""
WINDOW_TOLERANCE = 2e-5
"""Rounding, where products of other shapes take their sums in another order."""


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("base")


def test_every_probe_has_its_limits() -> None:
    assert {(probe.name, probe.figure) for probe in probes()} == set(LIMITS)


@pytest.mark.parametrize("probe", probes(), ids=lambda probe: f"{probe.name}, {probe.figure}")
def test_a_hard_signal_comes_back_as_what_it_is(probe: Probe, model: Model) -> None:
    limits = LIMITS[probe.name, probe.figure]
    for sound, limit in zip(
        (copied(probe.signal, model), coded(probe.signal, model, QUALITY)), limits, strict=True
    ):
        assert torch.isfinite(sound).all()
        assert probe.measure(sound) <= limit


def test_seams_are_no_rougher_than_elsewhere(model: Model) -> None:
    sound = coded(phrases(seconds=40), model, QUALITY)
    ranks = seam_ranks(sound)
    assert len(ranks) == 3
    assert max(ranks) < MAX_SEAM_RANK
    clicking = sound.clone()
    clicking[2 * SEAM_SAMPLES :] += 0.03  # the measure does see a step
    assert seam_ranks(clicking)[1] > MAX_SEAM_RANK


@pytest.mark.usefixtures("exact_products")
@torch.inference_mode()
def test_sound_in_windows_is_that_of_one_window(model: Model) -> None:
    config, signal = model.config.spectrogram, phrases(seconds=26)
    log_mel = log_mel_spectrogram(signal[None], config)
    in_windows = copied(signal, model)
    whole = Synthesizer(model.vocoder)(log_mel, torch.tensor([log_mel.shape[2]]))[0]
    assert SEAM_SAMPLES == STEP_FRAMES * config.hop_samples
    assert len(signal) > 2 * SEAM_SAMPLES
    assert float((in_windows - whole[: len(in_windows)]).abs().max()) < WINDOW_TOLERANCE
