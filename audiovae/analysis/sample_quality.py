"""How good samples are: a Frechet distance and a nearest-neighbour distance, in one embedding.

The embedding is named here, as it must be with either distance: mean and standard deviation over
a window of 1.5 s of 20 mel-frequency cepstral coefficients (the discrete cosine transform of the
project's own log-mel). It needs no trained network, so nothing favours a model that resembles it.
"""

from __future__ import annotations

import math
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.linalg import eigh, eigvalsh
from torch import Tensor

from audiovae.errors import ShapeError

NUM_COEFFICIENTS: Final = 20
WINDOW_FRAMES: Final = 129

Features = NDArray[np.float64]


def cepstral_features(log_mel: Tensor) -> Features:
    """Embed a log-mel, window by window.

    Args:
        log_mel: `[mel, frame]`, natural log of magnitude.

    Returns:
        `[window, 40]`; a log-mel shorter than a window is one.
    """
    frames = log_mel.shape[1]
    cepstrum = dct(log_mel.double().cpu().numpy(), axis=0, norm="ortho")[:NUM_COEFFICIENTS]
    count = max(1, frames // WINDOW_FRAMES)
    windows = np.array_split(cepstrum[:, : max(count * WINDOW_FRAMES, 1)], count, axis=1)
    return np.stack([np.concatenate([w.mean(axis=1), w.std(axis=1)]) for w in windows])


def frechet_distance(first: Features, second: Features) -> float:
    """Frechet distance of two Gaussians fitted to features (Heusel et al., 2017, 1706.08500).

    Args:
        first: `[sample, feature]`, at least two samples.
        second: `[sample, feature]`, likewise.

    Raises:
        ShapeError: If there are fewer, or the features differ in number.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ShapeError(
            "expected two sets of at least 2 samples of as many features, got "
            f"{list(first.shape)} and {list(second.shape)}; give more samples"
        )
    covariances = [np.atleast_2d(np.cov(one, rowvar=False)) for one in (first, second)]
    # The trace of the root of a product of two covariances is that of a symmetric matrix, whose
    # eigenvalues stay real where there are fewer samples than features.
    values, vectors = eigh(covariances[0])
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    overlap = np.sqrt(eigvalsh(root @ covariances[1] @ root).clip(min=0)).sum()
    shift = float(np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2))
    spread = float(np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * overlap)
    return max(0.0, shift + spread)


def nearest_distances(samples: Features, training: Features) -> Features:
    """`[sample]`: how far each is from the nearest training window, in deviations a feature.

    A copy of a training window is at 0; new sounds of the same kind lie as far as recordings
    that were held back.
    """
    scale = training.std(axis=0).clip(min=1e-9)
    a, b = torch.from_numpy(samples / scale), torch.from_numpy(training / scale)
    nearest = torch.cdist(a, b).min(dim=1).values / math.sqrt(samples.shape[1])
    return cast(Features, nearest.numpy())
