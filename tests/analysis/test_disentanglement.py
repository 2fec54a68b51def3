"""DCI: high where each dimension is one factor, low where all are mixed."""

from __future__ import annotations

import numpy as np

from audiovae.analysis.disentanglement import dci


def factors(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.integers(4, size=count) for name in ("pitch", "loudness", "instrument")}


def test_one_dimension_a_factor_scores_high_and_a_rotation_low() -> None:
    known = factors(400)
    noise = 0.05 * np.random.default_rng(1).normal(size=(400, 3))
    aligned = np.stack(list(known.values()), axis=1) + noise
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    apart, mixed = dci(aligned, known), dci(aligned @ rotation, known)
    assert apart.disentanglement > 0.9
    assert apart.completeness > 0.9
    assert mixed.disentanglement < apart.disentanglement - 0.3
    assert min(apart.informativeness.values()) > 0.97


def test_noise_tells_nothing() -> None:
    known = factors(300)
    scores = dci(np.random.default_rng(3).normal(size=(300, 3)), known)
    assert scores.disentanglement < 0.1
    assert max(scores.informativeness.values()) < 0.5


def test_the_same_seed_gives_the_same_scores() -> None:
    known = factors(120)
    codes = np.random.default_rng(4).normal(size=(120, 5))
    assert dci(codes, known, seed=2) == dci(codes, known, seed=2)
