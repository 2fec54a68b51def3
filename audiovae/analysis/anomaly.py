"""How unlike a set of normal sounds another one is: by the file, by the second, by the cell.

Four views of each block of a profile (the model's errors, its rate, its features, and the levels of
the sound itself) are measured by their Mahalanobis distance from the normal blocks, under a shrunk
covariance (Ledoit and Wolf, 2004). An adapted model has a fifth: what a network says of the block
that learnt to tell normal sounds from disturbed ones. Distances become surprises, -log10 of the
share of normal blocks at least as far away, and a block is as surprising as its most surprising
view. A file is as surprising as the mean of its most surprising tenth.

Normal sounds are judged by detectors that have not seen them (five folds), and compared with the
blocks of other folds, so that surprises and the threshold mean for a new sound what they mean for
a normal one: with a sound's own blocks among those, 12 % of new sounds passed a threshold of 10 %.
The network of an adapted model has seen all normal sounds, but finds them no more normal than new
ones of their kind (docs/anomaly.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audiovae.analysis.pooling import Arrays
from audiovae.analysis.profile import BLOCK_FRAMES
from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError

_DISTURBANCES: Final = "disturbances"
VIEWS: Final = ("errors", "rates", "features", "levels", _DISTURBANCES)
"""The last one is of adapted models only."""
MAX_NORMAL_FILES: Final = 5000
"""A detector learns from a sample of so many normal files, so that its memory is bounded."""
_MAX_BLOCKS = 50_000
_LEAST_BLOCKS_OF_FILE = 8
_FOLDS = 5
_PIECE_BLOCKS = 27  # 10 s: few long files are cut into pieces, to have folds
_TOP_SHARE = 0.1
_TAIL_SHARE = 0.05
_LEAST_TAIL = 5
_TAIL_SHAPE = 0.1  # of a generalised Pareto distribution: a little heavier than an exponential
_TINY = 1e-6

Values = NDArray[np.float64]
_Judge = Callable[[Values], Values]
"""From `[channel, block]` to how far from normal each block is."""


@dataclass(frozen=True)
class Surprise:
    """What is surprising about a sound.

    Attributes:
        total: Of the whole, -log10 of a share of normal blocks.
        blocks: `[block]`, of each 0.37 s.
        views: `[view, block]`, the same for each of `VIEWS`, the last only if there is one.
    """

    total: float
    blocks: Values
    views: Values

    @property
    def leading_view(self) -> str:
        """The view that is the most surprised."""
        return VIEWS[int(self.views.max(axis=1).argmax())]

    def per_second(self, seconds: float) -> Values:
        """`[second]`: the most surprising block that touches each second."""
        config = SpectrogramConfig()
        step = BLOCK_FRAMES / config.frames_per_second
        found = []
        for second in range(max(1, math.ceil(seconds))):
            first = min(int(second / step), len(self.blocks) - 1)
            last = max(first + 1, math.ceil((second + 1) / step))
            found.append(self.blocks[first:last].max())
        return np.array(found)


@dataclass(frozen=True)
class Threshold:
    """Where an alarm begins.

    Attributes:
        value: Totals above it are alarms.
        is_extrapolated: Whether there are too few normal files to have seen so low a rate.
    """

    value: float
    is_extrapolated: bool


class Detector:
    """Knows normal sounds, and how surprising others are.

    Args:
        profiles: Of normal sounds, from `Profiling`; read one at a time, more than once.
        seed: Of the sample that is learnt from, if there are very many.

    Attributes:
        normal_totals: Of the normal sounds, each judged by a detector that has not seen it.

    Raises:
        ConfigError: If there are fewer than five files and less than some 50 s of normal sound.
    """

    def __init__(self, profiles: Sequence[Arrays], seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        sample = _Sample(profiles, random)
        folds = np.arange(len(sample)) % _FOLDS
        blocks = [sample.draw(index) for index in range(len(sample))]
        self._judges = _judges(blocks)
        judged: list[list[list[Values]]] = []  # by fold, sound and view
        for fold in range(_FOLDS):
            seen = [block for block, own in zip(blocks, folds, strict=True) if own != fold]
            judges = _judges(seen)
            judged.append(
                [_distances(judges, sample[int(index)]) for index in np.flatnonzero(folds == fold)]
            )
        self._tails = _tails(judged)
        # Nor are they compared with their own blocks, which would make them less surprising.
        others = [_tails(judged[:fold] + judged[fold + 1 :]) for fold in range(_FOLDS)]
        pairs = zip(others, judged, strict=True)
        self.normal_totals = np.sort(
            [_surprise(tails, distances).total for tails, fold in pairs for distances in fold]
        )
        self._cell_mean, self._cell_deviation = sample.cell_statistics()

    def judge(self, profile: Arrays) -> Surprise:
        """How surprising a sound is."""
        return _surprise(self._tails, _distances(self._judges, profile))

    def share_above(self, total: float) -> float:
        """The share of normal sounds that are at least as surprising, never 0."""
        above = len(self.normal_totals) - np.searchsorted(self.normal_totals, total, side="left")
        return float((above + 1) / (len(self.normal_totals) + 1))

    def threshold(self, false_alarm_rate: float) -> Threshold:
        """The total that this share of normal sounds exceeds."""
        count = len(self.normal_totals)
        rank = math.ceil((count + 1) * (1 - false_alarm_rate))
        if rank <= count:
            return Threshold(float(self.normal_totals[rank - 1]), is_extrapolated=False)
        return Threshold(_Tail(self.normal_totals).quantile(false_alarm_rate), is_extrapolated=True)

    def heat_map(self, profile: Arrays) -> NDArray[np.float32]:
        """`[band, cell]`: by how many normal deviations an error or a level is unusual."""
        cells = profile["cells"].astype(np.float32)
        unusual = (cells - self._cell_mean) / self._cell_deviation
        heat: NDArray[np.float32] = np.maximum(unusual[0], np.abs(unusual[1]))
        return heat


class _Distance:
    """Mahalanobis distance from a set of blocks `[block, channel]`, per root of the channels."""

    def __init__(self, blocks: Values) -> None:
        from sklearn.covariance import ledoit_wolf

        self._mean = blocks.mean(axis=0)
        self._deviation = blocks.std(axis=0) + _TINY
        covariance, _ = ledoit_wolf(self._standardised(blocks.T))
        ridge = _TINY * np.eye(len(covariance))
        self._root = np.linalg.cholesky(np.linalg.inv(covariance + ridge))

    def __call__(self, values: Values) -> Values:
        """`[block]`, of values `[channel, block]`."""
        whitened = self._standardised(values) @ self._root
        distances: Values = np.sqrt(np.square(whitened).mean(axis=1))
        return distances

    def _standardised(self, values: Values) -> Values:
        standardised: Values = (values.T.astype(np.float64) - self._mean) / self._deviation
        return standardised


class _Tail:
    """The upper end of a distribution: what was seen, and a generalised Pareto tail beyond."""

    def __init__(self, values: Values) -> None:
        self._sorted = np.sort(values)
        self._count = len(values)
        self._tail = min(self._count, max(_LEAST_TAIL, round(_TAIL_SHARE * self._count)))
        self._start = float(self._sorted[-self._tail])
        self._scale = float((self._sorted[-self._tail :] - self._start).mean()) + _TINY

    def surprise(self, values: Values) -> Values:
        """-log10 of the share of the distribution that is at least as large."""
        above = self._count - np.searchsorted(self._sorted, values, side="left")
        seen = -np.log10((above + 1) / (self._count + 1))
        beyond = np.maximum(values - self._start, 0.0) / self._scale
        steps = np.log1p(_TAIL_SHAPE * beyond) / _TAIL_SHAPE * math.log10(math.e)
        extrapolated = steps - math.log10(self._tail / self._count)
        return np.where(values > self._start, extrapolated, seen)

    def quantile(self, share: float) -> float:
        """The value that a small share of the distribution exceeds."""
        ratio = max(1.0, self._tail / self._count / share)
        return self._start + self._scale * float(ratio**_TAIL_SHAPE - 1) / _TAIL_SHAPE


class _Sample:
    """The normal sounds that are learnt from, cut into pieces if they are few."""

    def __init__(self, profiles: Sequence[Arrays], random: np.random.Generator) -> None:
        chosen = random.permutation(len(profiles))[:MAX_NORMAL_FILES]
        self._profiles, self._random = profiles, random
        self._places: list[tuple[int, int, int | None]] = [
            (int(index), 0, None) for index in np.sort(chosen)
        ]
        if len(chosen) < _FOLDS:
            blocks = [profiles[file][VIEWS[0]].shape[1] for file, _, _ in self._places]
            require_enough(blocks)
            self._places = [
                (file, start, start + _PIECE_BLOCKS)
                for (file, _, _), count in zip(self._places, blocks, strict=True)
                for start in _piece_starts(count)
            ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Arrays:
        file, start, stop = self._places[index]
        profile = self._profiles[file]
        return {name: profile[name][..., start:stop] for name in VIEWS if name in profile}

    def draw(self, index: int) -> list[Values]:
        """Some blocks `[block, channel]` of a sound, of each view."""
        views = _views(self[index])
        limit = max(_LEAST_BLOCKS_OF_FILE, _MAX_BLOCKS // len(self))
        chosen = np.sort(self._random.permutation(views[0].shape[1])[:limit])
        return [view.T[chosen] for view in views]

    def cell_statistics(self) -> tuple[Values, Values]:
        """Mean and deviation over time of each cell's values, `[2, band, 1]`."""
        files = sorted({file for file, _, _ in self._places})
        count, sums, squares = 0, np.zeros(1), np.zeros(1)
        for file in files:
            cells = self._profiles[file]["cells"].astype(np.float64)
            count += cells.shape[2]
            sums = sums + cells.sum(axis=2, keepdims=True)
            squares = squares + np.square(cells).sum(axis=2, keepdims=True)
        mean = sums / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0)) + 0.05


def require_enough(blocks: Sequence[int]) -> None:
    """Refuse normal sounds, files of so many blocks, that no detector can learn from.

    Raises:
        ConfigError: If there are fewer than five files and less than some 50 s.
    """
    pieces = sum(len(_piece_starts(count)) for count in blocks)
    if max(len(blocks), pieces) < _FOLDS:
        raise ConfigError(
            f"expected at least {_FOLDS} normal files, or some 50 s of normal sound, got "
            f"{len(blocks)} files; give more of it"
        )


def _piece_starts(blocks: int) -> range:
    """Where the pieces of a file begin."""
    return range(0, max(1, blocks - _PIECE_BLOCKS // 2), _PIECE_BLOCKS)


def _views(profile: Arrays) -> list[Values]:
    return [profile[name] for name in VIEWS if name in profile]


def _stacked(blocks: Sequence[Sequence[Values]], view: int) -> Values:
    return np.concatenate([of_file[view] for of_file in blocks]).astype(np.float64)


def _judges(blocks: Sequence[Sequence[Values]]) -> list[_Judge]:
    """What judges each view, having seen these blocks of files."""
    names = VIEWS[: len(blocks[0])]
    return [
        _as_it_is if name == _DISTURBANCES else _Distance(_stacked(blocks, view))
        for view, name in enumerate(names)
    ]


def _as_it_is(values: Values) -> Values:
    """What the network says is a distance already."""
    logits: Values = values[0].astype(np.float64)
    return logits


def _distances(judges: Sequence[_Judge], profile: Arrays) -> list[Values]:
    """`[block]` of each view."""
    return [judge(values) for judge, values in zip(judges, _views(profile), strict=True)]


def _tails(judged: Sequence[Sequence[Sequence[Values]]]) -> list[_Tail]:
    """Of each view, over all folds and sounds."""
    sounds = [distances for fold in judged for distances in fold]
    return [_Tail(np.concatenate(of_view)) for of_view in zip(*sounds, strict=True)]


def _surprise(tails: Sequence[_Tail], distances: Sequence[Values]) -> Surprise:
    pairs = zip(tails, distances, strict=True)
    views = np.stack([tail.surprise(values) for tail, values in pairs])
    blocks = views.max(axis=0)
    top = np.sort(blocks)[-max(1, round(_TOP_SHARE * len(blocks))) :]
    return Surprise(float(top.mean()), blocks, views)
