"""One vector for a clip: how the encoder's features move, and a little of where they stand.

For each feature of the encoder's two finest levels, under the lowest rate of the model, the
deviation over time, and `MEAN_WEIGHT` times the mean over time; distances are Euclidean. Nothing is
standardised, so a vector does not depend on what else is in a collection. The choice was made by
retrieval on other sounds than those that docs/embedding.md reports on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiovae.analysis.pooling import Arrays, block_means, encode_at, in_bands
from audiovae.checkpoint import Model
from audiovae.errors import ShapeError
from audiovae.spectrogram import log_mel_to_db

MEAN_WEIGHT: Final = 0.1
THUMBNAIL_BANDS: Final = 32
THUMBNAIL_COLUMNS: Final = 64
THUMBNAIL_RANGE_DB: Final = 80.0
_QUALITY = 1
_LEVELS = 2  # the finest
_COLUMN_FRAMES = 8
_SHOWN_COLUMNS = 216  # the first 20 s


class Embedding:
    """Sums over time of features, which become a vector, and a small picture.

    A file's arrays: `embedding` `[channel]`, `thumbnail` `[band, column]` (0 to 255, high bands
    first), `seconds`.
    """

    def __init__(self, model: Model) -> None:
        """Measure with `model`."""
        self._model = model

    def measure(
        self, log_mel: Tensor, num_frames: Tensor, core_frames: Sequence[int]
    ) -> list[Arrays]:
        """Sums of features and of their squares; see `audiovae.measuring.Measurement`."""
        evidence = encode_at(self._model, log_mel, num_frames, _QUALITY).evidence
        strides = self._model.vae.config.vae.level_strides
        levels = list(zip(evidence, strides, strict=True))[-_LEVELS:]
        decibels = log_mel_to_db(log_mel)
        kept = []
        for row, core in enumerate(core_frames):
            sums, squares, counts = [], [], []
            for features, stride in levels:
                steps = features[row, :, : -(-core // stride)].double()
                sums.append(steps.sum(dim=1))
                squares.append(steps.square().sum(dim=1))
                counts.append(torch.full_like(sums[-1], steps.shape[1]))
            bands = in_bands(decibels[row], THUMBNAIL_BANDS).amax(dim=1)
            picture = block_means(bands, core, _COLUMN_FRAMES)[:, :_SHOWN_COLUMNS]
            kept.append(
                {
                    "sums": torch.cat(sums).cpu().numpy(),
                    "squares": torch.cat(squares).cpu().numpy(),
                    "counts": torch.cat(counts).cpu().numpy(),
                    "picture": picture.cpu().numpy(),
                }
            )
        return kept

    def join(self, parts: Sequence[Arrays]) -> Arrays:
        """Add up the sums; the picture is that of the beginning."""
        joined: Arrays = {
            name: np.sum([part[name] for part in parts], axis=0)
            for name in ("sums", "squares", "counts")
        }
        picture = np.concatenate([part["picture"] for part in parts], axis=1)
        return joined | {"picture": picture[:, :_SHOWN_COLUMNS]}

    def finish(self, whole: Arrays, seconds: float) -> Arrays:
        """Vector and picture of a file."""
        mean = whole["sums"] / whole["counts"]
        variance = np.maximum(whole["squares"] / whole["counts"] - mean**2, 0.0)
        vector = np.concatenate([np.sqrt(variance), MEAN_WEIGHT * mean])
        return {
            "embedding": vector.astype(np.float32),
            "thumbnail": _thumbnail(whole["picture"]),
            "seconds": np.array(seconds),
        }


def nearest(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest of some vectors to each query, by Euclidean distance, exactly.

    Args:
        vectors: `[clip, channel]`.
        queries: `[query, channel]`.
        count: How many of them.

    Returns:
        Their indices `[query, rank]` and distances, nearest first.

    Raises:
        ShapeError: If the vectors are of another length than the queries.
    """
    if vectors.shape[1] != queries.shape[1]:
        raise ShapeError(
            f"expected vectors of {vectors.shape[1]} numbers, got {queries.shape[1]}; "
            "embed both with the same model"
        )
    count = min(count, len(vectors))
    norms = np.square(vectors).sum(axis=1)
    found, distances = [], []
    for query in queries:
        squares = np.maximum(norms - 2 * (vectors @ query) + query @ query, 0.0)
        candidates = np.argpartition(squares, count - 1)[:count]
        # Equal distances in order of their places, so that a query has one answer.
        order = candidates[np.lexsort((candidates, squares[candidates]))]
        found.append(order)
        distances.append(np.sqrt(squares[order]))
    return np.array(found, np.int64), np.array(distances, np.float32)


def _thumbnail(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`[band, column]` of a fixed size, high bands first, its loudest cell at 255."""
    resized = functional.interpolate(
        torch.from_numpy(picture)[None], THUMBNAIL_COLUMNS, mode="linear"
    )[0].numpy()
    shade = (resized - resized.max()) / THUMBNAIL_RANGE_DB + 1
    levels: NDArray[np.uint8] = (255 * np.clip(shade[::-1], 0, 1)).round().astype(np.uint8)
    return levels
