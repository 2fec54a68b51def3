"""Where clips lie on a map, and which of them lie together."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_TSNE_POINTS: Final = 5000
_LEAST_POINTS = 5
_PRINCIPAL_COMPONENTS = 50
_MAX_CLUSTERS = 12
_NEIGHBOURS = 15

Points = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """A way to lay clips out.

    Attributes:
        name: PCA, UMAP or t-SNE.
        points: `[clip, 2]`, 0 to 1 along the longer axis.
    """

    name: str
    points: Points


def lay_out(vectors: NDArray[np.float32], seed: int) -> list[Layout]:
    """Maps of vectors `[clip, channel]`, the one to show first at the beginning.

    PCA always; beside it UMAP (McInnes et al., 2018, arXiv:1802.03426) if umap-learn is installed,
    else t-SNE for up to `MAX_TSNE_POINTS`. Same seed, same map.
    """
    components = _principal_components(vectors, seed)
    layouts = [Layout("PCA", _fitted(components[:, :2]))]
    if len(vectors) < _LEAST_POINTS:
        return layouts
    if importlib.util.find_spec("umap") is not None:
        layouts.insert(0, Layout("UMAP", _fitted(_umap(components, seed))))
    elif len(vectors) <= MAX_TSNE_POINTS:
        layouts.insert(0, Layout("t-SNE", _fitted(_tsne(components, seed))))
    return layouts


def cluster(vectors: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """The cluster of each clip, by k-means, larger clusters first."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(_MAX_CLUSTERS, max(1, round(np.sqrt(len(vectors) / 2))))
    components = _principal_components(vectors, seed)
    found = MiniBatchKMeans(count, random_state=seed, n_init=4).fit_predict(components)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    ranked: NDArray[np.int64] = np.argsort(order)[found]
    return ranked


def _principal_components(vectors: NDArray[np.float32], seed: int) -> Points:
    from sklearn.decomposition import PCA

    count = min(_PRINCIPAL_COMPONENTS, *vectors.shape)
    model = PCA(count, svd_solver="randomized", random_state=seed)
    components = np.zeros((len(vectors), max(2, count)), np.float32)
    if len(vectors) > 1:
        components[:, :count] = model.fit_transform(vectors)
    return components


def _umap(components: Points, seed: int) -> Points:
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed costs parallelism, which is wanted
        model = UMAP(
            n_neighbors=min(_NEIGHBOURS, len(components) - 1),
            init="random" if len(components) < _NEIGHBOURS else "spectral",
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(components), np.float32)


def _tsne(components: Points, seed: int) -> Points:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(components) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(model.fit_transform(components), np.float32)


def _fitted(points: Points) -> Points:
    """Points in a square of side 1, centred, their proportions kept."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()), 1e-9)
    fitted: Points = ((points - (low + high) / 2) / side + 0.5).astype(np.float32)
    return fitted
