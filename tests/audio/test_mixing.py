from __future__ import annotations

import numpy as np
import pytest

from audiovae.audio import mixed_to_mono


def noise(channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (channels, 44_100)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_unrelated_channels_are_averaged(channels: int) -> None:
    sound = noise(channels)
    np.testing.assert_array_equal(mixed_to_mono(sound)[0], sound.mean(axis=0))


def test_channels_of_opposite_polarity_are_not_silence() -> None:
    left = noise(1)[0]
    np.testing.assert_array_equal(mixed_to_mono(np.stack([0.9 * left, -left]))[0], -left)
    wide = np.stack([left, 0.5 * noise(2)[1]])
    np.testing.assert_array_equal(mixed_to_mono(wide)[0], wide.mean(axis=0))


def test_silence_and_nothing_stay_so() -> None:
    np.testing.assert_array_equal(mixed_to_mono(np.zeros((2, 9), np.float32)), np.zeros((1, 9)))
    assert mixed_to_mono(np.zeros((2, 0), np.float32)).shape == (1, 0)
