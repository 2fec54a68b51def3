"""A detector on profiles whose truth is known."""

import numpy as np
import pytest

from audiovae.analysis import anomaly
from audiovae.analysis.anomaly import VIEWS, Detector
from audiovae.analysis.pooling import Arrays
from audiovae.errors import ConfigError

BLOCKS = 12
CHANNELS = 6


def profile(seed: int, blocks: int = BLOCKS) -> Arrays:
    """Normal: correlated noise in every view."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((CHANNELS, CHANNELS))
    views = {
        name: (mixing @ random.standard_normal((CHANNELS, blocks))).astype(np.float32)
        for name in VIEWS
    }
    cells = random.standard_normal((2, 4, 4 * blocks)).astype(np.float16)
    return views | {"cells": cells}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector([profile(seed) for seed in range(60)])


def test_normal_sounds_raise_about_as_many_alarms_as_asked() -> None:
    """Over several detectors: that of one, with 40 normal sounds, scatters by 0.05."""
    rates = []
    for first in range(10_000, 60_000, 10_000):
        detector = Detector([profile(first + seed) for seed in range(40)])
        threshold = detector.threshold(0.1)
        assert not threshold.is_extrapolated
        new = [detector.judge(profile(first + 5000 + seed)).total for seed in range(80)]
        rates.append(np.mean([total > threshold.value for total in new]))
    assert 0.04 < np.mean(rates) < 0.16


@pytest.mark.parametrize("view", VIEWS)
def test_a_change_in_one_block_of_one_view_is_found(detector: Detector, view: str) -> None:
    odd = profile(2000)
    odd[view][:, 5] += 12.0
    surprise = detector.judge(odd)
    assert surprise.total > detector.threshold(0.02).value
    assert surprise.blocks.argmax() == 5
    assert surprise.leading_view == view
    assert detector.share_above(surprise.total) == pytest.approx(1 / 61)


def test_a_model_that_was_not_adapted_has_a_view_less(detector: Detector) -> None:
    profiles = [profile(seed) for seed in range(10)]
    for one in profiles:
        del one["disturbances"]
    assert len(Detector(profiles).judge(profiles[0]).views) == len(VIEWS) - 1
    assert len(detector.judge(profile(0)).views) == len(VIEWS)


def test_seconds_take_the_blocks_that_touch_them(detector: Detector) -> None:
    odd = profile(2001)
    odd["errors"][:, 0] += 12.0  # the first 0.37 s
    by_second = detector.judge(odd).per_second(4.4)
    assert len(by_second) == 5
    assert by_second.argmax() == 0


def test_a_rate_below_what_was_seen_is_extrapolated(detector: Detector) -> None:
    values = [detector.threshold(rate).value for rate in (0.2, 0.05, 0.01, 0.001)]
    assert values == sorted(values)
    assert detector.threshold(0.001).is_extrapolated
    assert values[-1] > detector.normal_totals.max()


def test_the_heat_map_shows_where(detector: Detector) -> None:
    odd = profile(2002)
    odd["cells"][1, 2, 10] = -20.0  # a level far too low counts as one too high does
    heat = detector.heat_map(odd)
    assert np.unravel_index(heat.argmax(), heat.shape) == (2, 10)
    assert heat.max() > 10


def test_one_long_file_is_enough_to_learn_from() -> None:
    detector = Detector([profile(0, blocks=300)])
    odd = profile(1, blocks=40)
    odd["features"][:, 20] += 12.0
    assert detector.judge(odd).total > detector.judge(profile(2, blocks=40)).total


def test_too_little_normal_sound_is_refused() -> None:
    with pytest.raises(ConfigError, match="give more of it"):
        Detector([profile(0), profile(1)])


def test_a_constant_view_is_no_obstacle() -> None:
    """An autoencoder pays no bits: its rates never move."""
    profiles = [profile(seed) for seed in range(10)]
    for one in profiles:
        one["rates"][:] = -0.7
    detector = Detector(profiles)
    assert np.isfinite(detector.normal_totals).all()


def test_many_files_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(list[Arrays]):
        read = 0

        def __len__(self) -> int:
            return 1_000_000

        def __getitem__(self, index: int) -> Arrays:  # type: ignore[override]
            Counted.read += 1
            return profile(index, blocks=1)

    monkeypatch.setattr(anomaly, "MAX_NORMAL_FILES", 50)
    detector = Detector(Counted())
    assert len(detector.normal_totals) == 50
    assert Counted.read <= 4 * 50
