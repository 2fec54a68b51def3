"""Rate control: the search finds what is within reach, and says what is not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovae.checkpoint import QualityPoint
from audiovae.rate import TOLERANCE, search_log_lambda

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
