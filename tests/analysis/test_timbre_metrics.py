"""`audiovae.analysis.timbre_metrics`: what must not count does not, what must does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.analysis.envelope_swap import has_world, swap_envelope, world_parts
from audiovae.analysis.timbre_metrics import (
    InstrumentClassifier,
    aligned,
    at_one_loudness,
    centroid_hz,
    contour_correlation,
    has_pitch_tracker,
    pitch_agreement,
    timbre_distances,
)
from tests.tones import SAMPLE_RATE

SECONDS = 2.0


def played(
    keys: tuple[int, ...] = (60, 64, 67, 72), harmonics: int = 6, fall: float = 1.0
) -> Tensor:
    """Notes one after the other, each dying away, `[sample]`."""
    samples = round(SECONDS * SAMPLE_RATE / len(keys))
    time = torch.arange(samples) / SAMPLE_RATE
    notes = []
    for key in keys:
        hertz = 440 * 2 ** ((key - 69) / 12)
        wave = sum(
            (torch.sin(2 * math.pi * k * hertz * time) / k**fall for k in range(1, harmonics + 1)),
            torch.zeros(samples),
        )
        notes.append(wave * torch.exp(-3 * time) * (1 - torch.exp(-200 * time)))
    return 0.1 * torch.cat(notes)


def test_level_and_delay_do_not_count() -> None:
    sound = played()
    late = 0.3 * torch.nn.functional.pad(sound, (441, 0))[: len(sound)]
    other = timbre_distances(played(fall=2.0), sound, SAMPLE_RATE, with_pitch=False)
    same = timbre_distances(late, sound, SAMPLE_RATE, with_pitch=False)
    assert same.mel_distance < 0.15 * other.mel_distance
    assert same.contour > 0.98


def test_loudness_becomes_one() -> None:
    loud, quiet = (
        at_one_loudness(played(), SAMPLE_RATE),
        at_one_loudness(0.01 * played(), SAMPLE_RATE),
    )
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-5)
    silence = torch.zeros(SAMPLE_RATE)
    assert torch.equal(at_one_loudness(silence, SAMPLE_RATE), silence)


@pytest.mark.parametrize("lag", [-1764, 0, 2205])
def test_a_lag_is_found_to_a_few_milliseconds(lag: int) -> None:
    sound = played()
    padded = torch.nn.functional.pad(sound, (4410, 4410))
    moved = padded[4410 - lag : 4410 - lag + len(sound)]
    fitted = aligned(moved, sound, SAMPLE_RATE)
    assert len(fitted) == len(sound)
    middle = slice(8820, len(sound) - 8820)
    correlation = torch.corrcoef(torch.stack([fitted[middle].abs(), sound[middle].abs()]))[0, 1]
    assert float(correlation) > 0.5


def test_contours_of_the_same_notes_agree_and_of_others_do_not() -> None:
    sound = played()
    assert contour_correlation(played(harmonics=2), sound, SAMPLE_RATE) > 0.95
    assert contour_correlation(played(keys=(60, 64, 67)), sound, SAMPLE_RATE) < 0.7
    assert contour_correlation(torch.zeros_like(sound), sound, SAMPLE_RATE) == 0.0


@pytest.mark.skipif(not has_pitch_tracker(), reason="swift-f0 is not installed")
def test_pitch_forgives_octaves_and_nothing_else() -> None:
    sound = played()
    assert pitch_agreement(sound, sound, SAMPLE_RATE) == 1.0
    octave = pitch_agreement(played(keys=(72, 76, 79, 84)), sound, SAMPLE_RATE)
    fifth = pitch_agreement(played(keys=(67, 71, 74, 79)), sound, SAMPLE_RATE)
    assert octave is not None
    assert octave > 0.9
    assert fifth is not None
    assert fifth < 0.1
    assert pitch_agreement(sound, torch.zeros_like(sound), SAMPLE_RATE) is None


def test_brighter_sounds_have_a_higher_centroid() -> None:
    assert centroid_hz(played(fall=0.5), SAMPLE_RATE) > centroid_hz(played(fall=2.0), SAMPLE_RATE)


def test_instruments_are_told_apart_in_notes_not_heard_before() -> None:
    falls = (0.3, 1.0, 2.5)
    learnt = [(60, 62, 64, 65), (72, 71, 69, 67), (64, 57, 60, 67), (55, 59, 62, 67)]
    clips = [played(keys, fall=fall) for keys in learnt for fall in falls]
    classify = InstrumentClassifier(clips, [0, 1, 2] * len(learnt), SAMPLE_RATE)
    for instrument, fall in enumerate(falls):
        clip = 0.2 * played((64, 69, 65, 60), fall=fall)
        assert classify(clip) == instrument
        scores = classify.scores(clip)
        assert np.isfinite(scores).all()
        assert scores.argmax() == instrument
    assert np.isfinite(classify.scores(torch.zeros(SAMPLE_RATE))).all()


@pytest.mark.skipif(not has_world(), reason="pyworld is not installed")
@pytest.mark.filterwarnings("ignore:pkg_resources")
def test_an_envelope_goes_over_and_the_pitch_stays() -> None:
    dull, bright = played(fall=2.5), played((65, 60, 67, 62), fall=0.3)
    parts = [world_parts(sound, SAMPLE_RATE) for sound in (dull, bright)]
    swapped = swap_envelope(*parts)
    assert swapped.shape == dull.shape
    assert centroid_hz(swapped, SAMPLE_RATE) > 1.3 * centroid_hz(dull, SAMPLE_RATE)
