"""What arithmetic on timbre should keep to: ways, returns, sums and gains, each measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import torch
from torch import Tensor

from audiovae.analysis.metrics import measure
from audiovae.analysis.timbre_metrics import centroid_hz, pitch_agreement, timbre_distances
from audiovae.arithmetic import add, scale, transfer
from audiovae.checkpoint import Model
from pipelines.evaluation.timbre_bench import TimbreBench, Trial

_AMOUNTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_GAINS = (0.5, 0.25)


@dataclass(frozen=True)
class Property:
    """One figure: what it says, and its value, a mean over pairs."""

    title: str
    value: float


def neighbours(bench: TimbreBench) -> Iterator[Trial]:
    """For every phrase of one voice, from each instrument to the next."""
    count, players = len(bench.orchestra.sounds), len(bench.orchestra.names)
    for phrase in range(count):
        if bench.orchestra.one_voice[phrase]:
            for source in range(players):
                yield Trial(phrase, source, (source + 1) % players, (phrase + 1) % count)


def way_properties(bench: TimbreBench, trial: Trial) -> list[Property]:
    """Of the way from source to target in steps, and of the way there and back."""
    sounds = [bench.transferred(bench.model, trial, amount) for amount in _AMOUNTS]
    odds = [_odds(bench, sound, trial) for sound in sounds]
    centroids = [centroid_hz(sound, bench.rate) for sound in sounds]
    rising = centroids[-1] >= centroids[0]
    played, truth = (bench.sound(trial.phrase, who) for who in (trial.source, trial.target))
    one_voice = pitch_agreement(sounds[2], played, bench.rate)
    copied = timbre_distances(played, truth, bench.rate, with_pitch=False).mel_distance
    again = transfer(
        bench.encode(bench.model, sounds[-1]),
        bench.latents(bench.model, trial.reference_phrase, trial.target),
    )
    back = transfer(
        bench.encode(bench.model, sounds[-1]),
        bench.latents(bench.model, trial.reference_phrase, trial.source),
    )
    twice = _distance(bench, bench.decode(bench.model, again), sounds[-1])
    returned = _distance(bench, bench.decode(bench.model, back), sounds[0])
    found = [
        Property("steps of 1/4 that raise the target's log-odds", _share_rising(odds, True)),
        Property(
            "steps of 1/4 that move the centroid the right way", _share_rising(centroids, rising)
        ),
        Property("amount 1 twice against once, of copy-input's distance", twice / copied),
        Property("there and back against amount 0, of copy-input's distance", returned / copied),
    ]
    if one_voice is not None:
        found.append(Property("half-way: frames at the source's pitch", one_voice))
    return found


def sum_properties(bench: TimbreBench, model: Model, trial: Trial, name: str) -> list[Property]:
    """Of the sum of two phrases' latents, and of latents times a gain."""
    first = bench.latents(model, trial.phrase, trial.source)
    second = bench.latents(model, trial.reference_phrase, trial.target)
    parts = (
        bench.sound(trial.phrase, trial.source),
        bench.sound(trial.reference_phrase, trial.target),
    )
    mixture = parts[0] + parts[1]
    decoded = bench.decode(model, add(first, second))
    direct = bench.decode(model, bench.encode(model, mixture))
    found = [
        Property(f"{name}: decode of z1 + z2 against the mixture", _raw(bench, decoded, mixture)),
        Property(f"{name}: decode of the encoded mixture", _raw(bench, direct, mixture)),
    ]
    for gain in _GAINS:
        scaled = bench.decode(model, scale(first, gain))
        title = f"{name}: decode of {gain} z against the sound times {gain}"
        found.append(Property(title, _raw(bench, scaled, gain * parts[0])))
    return found


def means(properties: list[Property]) -> list[Property]:
    """One figure a title, in the order of their first appearance."""
    titles = dict.fromkeys(each.title for each in properties)
    return [
        Property(title, fmean(each.value for each in properties if each.title == title))
        for title in titles
    ]


def _odds(bench: TimbreBench, sound: Tensor, trial: Trial) -> float:
    scores = bench.classifier.scores(sound)
    return float(scores[trial.target] - scores[trial.source])


def _share_rising(values: list[float], rising: bool) -> float:
    steps = [(after > before) == rising for before, after in pairwise(values)]
    return fmean(map(float, steps))


def _distance(bench: TimbreBench, estimate: Tensor, truth: Tensor) -> float:
    return timbre_distances(estimate, truth, bench.rate, with_pitch=False).mel_distance


def _raw(bench: TimbreBench, estimate: Tensor, truth: Tensor) -> float:
    """Mel distance without a change of loudness."""
    with torch.inference_mode():
        made = measure(estimate[None], truth[None], bench.rate, with_visqol=False)
    return made.mel_distance
