"""Frechet and nearest-neighbour distances, and what they are measured on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiovae.analysis.sample_quality import (
    NUM_COEFFICIENTS,
    WINDOW_FRAMES,
    cepstral_features,
    frechet_distance,
    nearest_distances,
)
from audiovae.errors import ShapeError


def normal(count: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def test_the_distance_of_gaussians_is_that_of_the_formula() -> None:
    """Diagonal ones: |m1 - m2|^2 + sum (s1 - s2)^2."""
    shift, scale = np.array([1.0, 0.0, -2.0]), np.array([2.0, 1.0, 0.5])
    first, second = normal(200_000, 3, 0), shift + scale * normal(200_000, 3, 1)
    expected = float((shift**2).sum() + ((scale - 1) ** 2).sum())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second))


def test_a_set_is_at_no_distance_from_itself() -> None:
    features = normal(50, 8, 0)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least 2 samples"):
        frechet_distance(normal(1, 4, 0), normal(9, 4, 0))
    with pytest.raises(ShapeError, match="as many features"):
        frechet_distance(normal(9, 3, 0), normal(9, 4, 0))


def test_a_copy_is_at_zero_and_a_stranger_is_not() -> None:
    training = 5 + 3 * normal(400, 6, 0)
    strangers = 5 + 3 * normal(50, 6, 1)
    assert nearest_distances(training[:20], training).max() == pytest.approx(0.0, abs=1e-5)
    assert nearest_distances(strangers, training).min() > 0.05
    scaled = nearest_distances(7 * strangers, 7 * training)
    np.testing.assert_allclose(scaled, nearest_distances(strangers, training), rtol=1e-6)


def test_features_are_of_windows_and_know_level_and_movement() -> None:
    generator = torch.Generator().manual_seed(0)
    steady = torch.full((128, 3 * WINDOW_FRAMES + 40), -4.0)
    features = cepstral_features(steady)
    assert features.shape == (3, 2 * NUM_COEFFICIENTS)
    assert np.abs(features[:, 1:]).max() < 1e-9  # flat and still: only the level is left
    assert np.diff(np.stack([features[0], cepstral_features(steady + 1)[0]])[:, 0])[0] > 0
    moving = steady + torch.randn(steady.shape[1], generator=generator)
    assert cepstral_features(moving)[0, NUM_COEFFICIENTS] > 1


@pytest.mark.parametrize("frames", [1, 20, WINDOW_FRAMES - 1])
def test_a_short_sound_is_one_window(frames: int) -> None:
    assert cepstral_features(torch.full((128, frames), -3.0)).shape == (1, 2 * NUM_COEFFICIENTS)
