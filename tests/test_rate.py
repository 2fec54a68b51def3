"""Rate control: the search finds what is within reach, and says what is not."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovae import rate
from audiovae.audio import ResampledReader, write_audio
from audiovae.checkpoint import Model, QualityPoint
from audiovae.rate import TOLERANCE, LambdaSearch, RatePoint, _within_limit, search_log_lambda
from audiovae.reconstruct import Reconstructor
from tests.small_models import load_tiny_model

LOW, HIGH = 3.0, 10.0
SCALE = tuple(QualityPoint(q, 2.5 + 0.9 * q, 0.1 * 2**q, 5.0) for q in range(1, 9))


def bytes_of(log_lambda: float, exponent: float, saturation: float, fixed: float) -> float:
    """A rate curve as models have: a power of lambda that saturates, over a fixed header."""
    power = 40 * math.exp(exponent * (log_lambda - LOW))
    return fixed + saturation * power / (saturation + power)


@settings(max_examples=200, deadline=None)
@given(
    exponent=st.floats(0.3, 1.2),
    saturation=st.floats(2_000, 100_000),
    fixed=st.floats(20, 200),
    share=st.floats(0.02, 0.98),
)
def test_targets_within_reach_are_hit(
    exponent: float, saturation: float, fixed: float, share: float
) -> None:
    def measure(log_lambda: float) -> float:
        return bytes_of(log_lambda, exponent, saturation, fixed)

    smallest, largest = measure(LOW), measure(HIGH)
    target = smallest * (largest / smallest) ** share
    found = search_log_lambda(measure, target, SCALE, (LOW, HIGH), target / 1250)
    assert abs(found.num_bytes / target - 1) <= 2 * TOLERANCE


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0.02, 0.98))
def test_a_limit_is_never_passed(share: float) -> None:
    def measure(log_lambda: float) -> float:
        return float(round(bytes_of(log_lambda, 0.7, 20_000, 60)))

    smallest, largest = measure(LOW), measure(HIGH)
    target = smallest * (largest / smallest) ** share
    found = search_log_lambda(measure, target, SCALE, (LOW, HIGH), target / 1250, at_most=True)
    assert found.num_bytes <= target
    assert found.num_bytes >= 0.85 * target


@pytest.mark.parametrize(("target", "end"), [(1.0, LOW), (1e9, HIGH)])
def test_out_of_reach_gives_the_end_of_the_range(target: float, end: float) -> None:
    def measure(log_lambda: float) -> float:
        return bytes_of(log_lambda, 0.7, 20_000, 60)

    found = search_log_lambda(measure, target, SCALE, (LOW, HIGH), target / 1250)
    assert found.log_lambda == pytest.approx(end)
    limited = search_log_lambda(measure, target, SCALE, (LOW, HIGH), target / 1250, at_most=True)
    assert limited.log_lambda == pytest.approx(end)


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0.05, 0.95), bias=st.floats(0.8, 1.3))
def test_a_limit_holds_though_searches_only_estimate(share: float, bias: float) -> None:
    measured = 0

    def measure(log_lambda: float) -> float:
        nonlocal measured
        measured += 1
        return bytes_of(log_lambda, 0.7, 20_000, 60)

    def estimate(log_lambda: float) -> float:
        return bias * bytes_of(log_lambda, 0.7, 20_000, 60)

    def search(goal: float) -> RatePoint:
        return search_log_lambda(estimate, goal, SCALE, (LOW, HIGH), goal / 1250, at_most=True)

    smallest = bytes_of(LOW, 0.7, 20_000, 60)
    limit = smallest * (bytes_of(HIGH, 0.7, 20_000, 60) / smallest) ** share
    found = _within_limit(measure, search, limit, LOW)
    assert found.num_bytes == bytes_of(found.log_lambda, 0.7, 20_000, 60) <= limit
    assert found.num_bytes >= 0.85 * limit
    assert measured <= 5


def test_a_limit_out_of_reach_gives_the_smallest_there_is() -> None:
    found = _within_limit(lambda at: 100 + at, lambda _: RatePoint(LOW + 1, 40.0), 50, LOW)
    assert found == RatePoint(LOW, 100 + LOW)


def test_threads_that_ask_for_one_file_share_its_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []

    def choose(_model: Model, _: Reconstructor, source: ResampledReader, *_wish: object) -> Any:
        time.sleep(0.05)
        searched.append(str(source.info.num_samples))
        return 5.0, ""

    monkeypatch.setattr(rate, "choose_log_lambda", choose)
    model = load_tiny_model(tmp_path)
    search = LambdaSearch(model, Reconstructor(model), 1.0, None)
    paths = [tmp_path / f"{count}.wav" for count in (1_000, 2_000)]
    for path in paths:
        write_audio(path, np.zeros((1, int(path.stem)), np.float32), 44_100)
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(search.find, paths * 6)) == {(5.0, "")}
    assert sorted(searched) == ["1000", "2000"]
