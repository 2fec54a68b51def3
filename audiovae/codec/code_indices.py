"""Code indices of a vq model: which row each is coded under, and how a decoder knows it.

The prior's logits choose a row of the table: the largest one. Two machines could disagree where
the largest are nearly tied. So a decoder that finds several within a margin of its largest logit
asks for each of them, and the encoder has written the answer wherever a decoder may ask:

    decoder asks         rows whose logit is less than a margin below the largest
    encoder answers      rows whose logit is less than 2 margins below the largest

A question is `place of the symbol * rows + row`. Logits that differ by less than half a margin
then always pick the same row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from audiovae.codec.symbols import Floats, Integers

LOGIT_TIE_MARGIN = 1e-3
"""Twice the largest difference of a logit between encoder and decoder that is made good.

Measured on a trained model: threads, batch and padding move logits by 2e-6 at most.
"""


def rows_and_ties(logits: Floats) -> tuple[Integers, dict[int, bool]]:
    """Encoder: the row of each symbol, of logits `[symbol, row]`, and what a decoder may ask."""
    rows = logits.argmax(axis=1).astype(np.int32)
    near = _near_the_largest(logits, 2 * LOGIT_TIE_MARGIN)
    near &= near.sum(axis=1, keepdims=True) > 1
    num_rows = logits.shape[1]
    ties = {
        place * num_rows + row: bool(rows[place] == row)
        for place, row in zip(*(found.tolist() for found in np.nonzero(near)), strict=True)
    }
    return rows, ties


def rows_asking(logits: Floats, is_row: Callable[[int], bool]) -> Integers:
    """Decoder: the row of each symbol; `is_row(question)` is what the encoder answers."""
    rows: Integers = logits.argmax(axis=1).astype(np.int32)
    near = _near_the_largest(logits, LOGIT_TIE_MARGIN)
    num_rows = logits.shape[1]
    for place in np.flatnonzero(near.sum(axis=1) > 1).tolist():
        candidates = np.flatnonzero(near[place]).tolist()
        answered = (row for row in candidates if is_row(place * num_rows + row))
        rows[place] = next(answered, rows[place])
    return rows


def _near_the_largest(logits: Floats, margin: float) -> NDArray[np.bool_]:
    """`[symbol, row]`: which rows are less than a margin below the largest."""
    near: NDArray[np.bool_] = logits > logits.max(axis=1, keepdims=True) - margin
    return near
