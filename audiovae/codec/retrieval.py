"""Answers of one bit to a known set of keys, in about one bit a key, without the keys.

Whoever asks at one of the keys gets its answer; at any other place the answer means nothing. The
bits X solve a random linear system over GF(2): for each key, the parity of X AND hash(key) is
its answer (Dietzfelbinger and Pagh, 2008, arXiv:0803.3693). A list of the keys would take twelve
bits for each of them here; and both sides would have to agree on which they are. Many keys are
spread over buckets, each with bits of its own, so that time grows with their number only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from audiovae.codec.integers import ByteReader, write_varint

_KEY_BYTES = 4
_BUCKET_NUMBER_BYTES = 4
_BUCKET_BYTES = 32  # X is cut into as many buckets as hold at least this


def pack_answers(answers: Mapping[int, bool]) -> bytes:
    """Code the answers to these keys: a varint of the length of X in bytes, then X."""
    num_bytes = -(-len(answers) // 8) if any(answers.values()) else 0
    while (packed := _solve(answers, num_bytes)) is None:  # contradictions: other equations, then
        num_bytes += max(1, num_bytes // 32)
    return write_varint(num_bytes) + packed


class Answers:
    """Reads what `pack_answers` wrote.

    Args:
        reader: Stands at the beginning of the answers, and behind them afterwards.
    """

    def __init__(self, reader: ByteReader) -> None:
        self._packed = reader.take(reader.varint())

    def at(self, key: int) -> bool:
        """The answer to one of the keys; arbitrary for any other."""
        start, stop, equation = _equation(key, len(self._packed))
        bits = int.from_bytes(self._packed[start:stop], "little")
        return (equation & bits).bit_count() % 2 == 1


def _equation(key: int, num_bytes: int) -> tuple[int, int, int]:
    """Where a key's bucket lies in X, `[start, stop)`, and which of its bits count."""
    buckets = max(1, num_bytes // _BUCKET_BYTES)
    digest = hashlib.shake_128(key.to_bytes(_KEY_BYTES, "little"))
    longest = digest.digest(_BUCKET_NUMBER_BYTES + 2 * _BUCKET_BYTES)
    bucket = int.from_bytes(longest[:_BUCKET_NUMBER_BYTES], "little") % buckets
    start, stop = bucket * num_bytes // buckets, (bucket + 1) * num_bytes // buckets
    row = longest[_BUCKET_NUMBER_BYTES : _BUCKET_NUMBER_BYTES + stop - start]
    return start, stop, int.from_bytes(row, "little")


def _solve(answers: Mapping[int, bool], num_bytes: int) -> bytes | None:
    """X with the right parity at every key; None if there is none of this length."""
    buckets: dict[tuple[int, int], list[tuple[int, bool]]] = {}
    for key, answer in answers.items():
        start, stop, equation = _equation(key, num_bytes)
        buckets.setdefault((start, stop), []).append((equation, answer))
    packed = bytearray(num_bytes)
    for (start, stop), equations in buckets.items():
        solution = _solve_bucket(equations)
        if solution is None:
            return None
        packed[start:stop] = solution.to_bytes(stop - start, "little")
    return bytes(packed)


def _solve_bucket(equations: Iterable[tuple[int, bool]]) -> int | None:
    """Gaussian elimination; each equation is stored under its highest bit."""
    solved: dict[int, tuple[int, bool]] = {}
    for equation, answer in equations:
        while (highest := equation.bit_length()) in solved:
            known, known_answer = solved[highest]
            equation, answer = equation ^ known, answer != known_answer
        if equation:
            solved[highest] = (equation, answer)
        elif answer:
            return None
    solution = 0
    for highest in sorted(solved):  # all lower bits are decided by then
        equation, answer = solved[highest]
        if ((equation & solution).bit_count() % 2 == 1) != answer:
            solution |= 1 << (highest - 1)
    return solution
