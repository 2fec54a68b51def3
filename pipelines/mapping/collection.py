"""The vectors of a collection: `embeddings.npz` and `embeddings.parquet`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from audiovae.commands import UsageProblem, one_line
from audiovae.replacing import replacing

if TYPE_CHECKING:
    from pipelines.measured import MeasuredFile

NPZ_NAME: Final = "embeddings.npz"
PARQUET_NAME: Final = "embeddings.parquet"
_ROWS_PER_GROUP: Final = 10_000


@dataclass(frozen=True, eq=False)
class Collection:
    """Embedded clips, sorted by name.

    Attributes:
        names: Paths below `root`, with "/" between their parts.
        labels: Class of each: what a manifest.csv beside it says, else the name of its folder.
        vectors: `[clip, channel]`.
        seconds: Length of each.
        root: Directory of the clips.
        checkpoint: Name or path of the model that embedded them.
        weights: Identity of its files.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    vectors: NDArray[np.float32]
    seconds: NDArray[np.float64]
    root: Path
    checkpoint: str
    weights: str

    def __len__(self) -> int:
        return len(self.names)


def collect(
    files: Sequence[MeasuredFile],
    root: Path,
    checkpoint: str,
    weights: str,
    progress: Callable[[int, int], None],
) -> tuple[Collection, NDArray[np.uint8]]:
    """Read what was measured: the collection, and a picture `[clip, band, column]` of each."""
    from audiovae.labels import clip_labels
    from audiovae.measuring import load_arrays

    first = load_arrays(files[0].arrays)
    vectors = np.zeros((len(files), len(first["embedding"])), np.float32)
    pictures = np.zeros((len(files), *first["thumbnail"].shape), np.uint8)
    for index, file in enumerate(files):
        arrays = load_arrays(file.arrays)
        vectors[index], pictures[index] = arrays["embedding"], arrays["thumbnail"]
        progress(index + 1, len(files))
    names = tuple(file.name for file in files)
    collection = Collection(
        names,
        clip_labels(names, root, None),
        vectors,
        np.array([file.seconds for file in files]),
        root,
        checkpoint,
        weights,
    )
    return collection, pictures


def save_collection(collection: Collection, output_dir: Path) -> None:
    """Write both files, each whole or not at all."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    from audiovae.measuring import save_arrays

    save_arrays(
        output_dir / NPZ_NAME,
        {
            "names": np.array([os.fsencode(name) for name in collection.names]),
            "labels": np.array([one_line(label) for label in collection.labels]),
            "embeddings": collection.vectors,
            "seconds": collection.seconds,
            "root": np.array(os.fsencode(collection.root)),
            "checkpoint": np.array(collection.checkpoint),
            "weights": np.array(collection.weights),
        },
    )
    width = collection.vectors.shape[1]
    schema = arrow.schema(
        [
            ("file", arrow.string()),
            ("label", arrow.string()),
            ("seconds", arrow.float64()),
            ("embedding", arrow.list_(arrow.float32(), width)),
        ],
        metadata={"checkpoint": collection.checkpoint, "weights": collection.weights},
    )
    path = output_dir / PARQUET_NAME
    with replacing(path) as draft, parquet.ParquetWriter(draft, schema) as writer:
        for start in range(0, len(collection), _ROWS_PER_GROUP):
            rows = slice(start, start + _ROWS_PER_GROUP)
            flat = arrow.array(collection.vectors[rows].ravel())
            columns = [
                arrow.array([one_line(name) for name in collection.names[rows]]),
                arrow.array([one_line(label) for label in collection.labels[rows]]),
                arrow.array(collection.seconds[rows]),
                arrow.FixedSizeListArray.from_arrays(flat, width),
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def load_collection(output_dir: Path) -> Collection:
    """Read what `save_collection` wrote.

    Raises:
        UsageProblem: If there is none.
    """
    path = output_dir / NPZ_NAME
    if not path.is_file():
        raise UsageProblem(
            f"expected a directory that embed has written, got '{output_dir}' without {NPZ_NAME}; "
            "run python -m pipelines.embed first"
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Collection(
                tuple(os.fsdecode(name) for name in stored["names"].tolist()),
                tuple(stored["labels"].tolist()),
                stored["embeddings"],
                stored["seconds"],
                Path(os.fsdecode(stored["root"].item())),
                stored["checkpoint"].item(),
                stored["weights"].item(),
            )
    except (ValueError, LookupError, EOFError, TypeError, AttributeError, BadZipFile):
        raise UsageProblem(
            f"expected the embeddings that embed has written in {path}, got a damaged file; "
            "remove it and run python -m pipelines.embed again"
        ) from None
