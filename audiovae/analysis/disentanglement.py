"""Disentanglement by the DCI metric (Eastwood and Williams, 2018, openreview By-7dz-AZ).

From a code, each known factor is predicted by a random forest; how much each code dimension
matters for each factor gives *disentanglement* (each dimension matters for one factor only) and
*completeness* (each factor needs one dimension only); how well the prediction works on codes held
back gives *informativeness*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

_TREES: Final = 100
_HELD_BACK: Final = 0.25
_MIN_TOTAL: Final = 1e-12


@dataclass(frozen=True)
class DCI:
    """The three scores, each in [0, 1], higher is better.

    Attributes:
        disentanglement: Mean over code dimensions, weighted by how much they matter.
        completeness: Mean over factors.
        informativeness: Accuracy for each factor on held-back codes.
    """

    disentanglement: float
    completeness: float
    informativeness: dict[str, float]


def dci(codes: NDArray[np.float64], factors: Mapping[str, NDArray[np.int64]], seed: int = 0) -> DCI:
    """Measure how a code is arranged.

    Args:
        codes: `[item, dimension]`.
        factors: Value of each factor for each item, `[item]`, as whole numbers.
        seed: Of the forests and the split.
    """
    importances, accuracies = [], {}
    for name, values in factors.items():
        train, test, wanted, truth = train_test_split(
            codes, values, test_size=_HELD_BACK, random_state=seed, stratify=values
        )
        forest = RandomForestClassifier(_TREES, max_features=None, random_state=seed)
        forest.fit(train, wanted)  # all features at each split: chance spreads no importance
        importances.append(forest.feature_importances_)
        accuracies[name] = float(forest.score(test, truth))
    matrix = np.array(importances).T  # [dimension, factor]
    by_dimension = 1 - _entropy(matrix, axis=1)
    by_factor = 1 - _entropy(matrix, axis=0)
    weights = matrix.sum(axis=1) / max(matrix.sum(), _MIN_TOTAL)
    return DCI(float((weights * by_dimension).sum()), float(by_factor.mean()), accuracies)


def _entropy(matrix: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Of each row or column as a distribution, in units of the largest that it can have."""
    shares = matrix / matrix.sum(axis=axis, keepdims=True).clip(min=_MIN_TOTAL)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    entropy: NDArray[np.float64] = -(shares * logs).sum(axis=axis) / np.log(matrix.shape[axis])
    return entropy
