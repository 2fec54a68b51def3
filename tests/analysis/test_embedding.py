"""Nearest neighbours are exact, and a query has one answer."""

import numpy as np
import pytest

from audiovae.analysis.embedding import nearest
from audiovae.errors import ShapeError


def test_neighbours_are_those_of_a_plain_search() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((50, 6)).astype(np.float32)
    queries = random.standard_normal((4, 6)).astype(np.float32)
    found, distances = nearest(vectors, queries, 7)
    plain = np.linalg.norm(vectors[None] - queries[:, None], axis=2)
    np.testing.assert_array_equal(found, np.argsort(plain, axis=1)[:, :7])
    np.testing.assert_allclose(distances, np.sort(plain, axis=1)[:, :7], rtol=1e-4)


def test_equal_distances_come_in_order() -> None:
    found, distances = nearest(np.ones((5, 3), np.float32), np.ones((1, 3), np.float32), 9)
    assert found.tolist() == [[0, 1, 2, 3, 4]]
    assert distances.tolist() == [[0, 0, 0, 0, 0]]


def test_vectors_of_another_model_are_refused() -> None:
    with pytest.raises(ShapeError, match="embed both with the same model"):
        nearest(np.ones((5, 3), np.float32), np.ones((1, 4), np.float32), 1)
