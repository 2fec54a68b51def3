"""`map.html`: a collection as a map to look at, to listen to, and to search.

One file: pictures are in it, and neighbours, computed from the whole vectors; sound is in it for
small collections, else it is played from where it lies.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from audiovae.commands import one_line
from pipelines.report import relative_url, write_page

if TYPE_CHECKING:
    from pipelines.mapping.collection import Collection

PAGE_NAME: Final = "map.html"
MAX_POINTS: Final = 20_000
"""A larger collection is shown by a sample of so many clips; the files hold all of them."""
_SIMILAR: Final = 12
_GRID: Final = 65_535
_COLOURED_GROUPS: Final = 16
_OTHERS: Final = "others"


@dataclass(frozen=True, slots=True)
class MapFacts:
    """What the page says of the whole, and how the map is made."""

    title: str
    seed: int
    embed_sound: bool | None = None


def write_map_page(
    output_dir: Path, collection: Collection, pictures: NDArray[np.uint8], facts: MapFacts
) -> Path:
    """Write the page, atomically.

    Args:
        output_dir: Where it goes.
        collection: What it shows.
        pictures: `[clip, band, column]`.
        facts: Of the whole.
    """
    from audiovae.analysis.map_layout import cluster, lay_out
    from pipelines.mapping.previews import (
        MAX_EMBEDDED_CLIPS,
        SHEET_COLUMNS,
        SHEET_ROWS,
        embedded_previews,
        sprite_sheets,
    )

    shown = _sample(len(collection), facts.seed)
    vectors = collection.vectors[shown]
    layouts = lay_out(vectors, facts.seed)
    clusters = [f"cluster {index + 1}" for index in cluster(vectors, facts.seed).tolist()]
    labels = [one_line(collection.labels[clip]) for clip in shown]
    holds_sound = facts.embed_sound
    if holds_sound is None:
        holds_sound = len(shown) <= MAX_EMBEDDED_CLIPS
    data = {
        "names": [one_line(collection.names[clip]) for clip in shown],
        "seconds": [round(float(collection.seconds[clip]), 2) for clip in shown],
        "layouts": [{"name": one.name, "points": _packed_points(one.points)} for one in layouts],
        "groups": [_grouping("folder or class", labels), _grouping("cluster", clusters)],
        "similar": _packed(_neighbours(vectors).astype(np.uint16)),
        "numSimilar": min(_SIMILAR, len(shown) - 1),
        "sheets": sprite_sheets(pictures[shown]),
        "sheet": {
            "columns": SHEET_COLUMNS,
            "rows": SHEET_ROWS,
            "width": pictures.shape[2],
            "height": pictures.shape[1],
        },
        "urls": [relative_url(collection.root / collection.names[i], output_dir) for i in shown],
        "previews": embedded_previews(collection, shown) if holds_sound else None,
    }
    return write_page(
        output_dir / PAGE_NAME,
        "map.html.j2",
        facts=facts,
        data=data,
        num_clips=len(collection),
        num_shown=len(shown),
        total_seconds=float(collection.seconds.sum()),
        checkpoint=Path(collection.checkpoint).stem,
    )


def _sample(count: int, seed: int) -> list[int]:
    if count <= MAX_POINTS:
        return list(range(count))
    chosen = np.random.default_rng(seed).permutation(count)[:MAX_POINTS]
    return sorted(int(clip) for clip in chosen)


def _neighbours(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """`[clip, rank]`: the clips most similar to each, itself left out."""
    from audiovae.analysis.embedding import nearest

    count = min(_SIMILAR, len(vectors) - 1)
    found, _ = nearest(vectors, vectors, count + 1)
    kept = [
        [other for other in row if other != clip][:count] for clip, row in enumerate(found.tolist())
    ]
    return np.array(kept, np.int64).reshape(len(vectors), count)


def _grouping(name: str, members: Sequence[str]) -> dict[str, Any]:
    """Names of groups, the largest first, and the group of each clip; small ones are joined."""
    ranked = [group for group, _ in Counter(members).most_common()]
    named = ranked if len(ranked) <= _COLOURED_GROUPS else ranked[: _COLOURED_GROUPS - 1]
    place = {group: index for index, group in enumerate(named)}
    of_clip = [place.get(group, len(named)) for group in members]
    others = [_OTHERS] if len(named) < len(ranked) else []
    return {"name": name, "groups": named + others, "of": of_clip}


def _packed_points(points: NDArray[np.float32]) -> str:
    return _packed(np.round(points * _GRID).astype(np.uint16))


def _packed(values: NDArray[np.uint16]) -> str:
    """Little-endian base64, which a browser unpacks faster than numbers in text."""
    return base64.b64encode(values.astype("<u2").tobytes()).decode("ascii")
