"""Answers of one bit to a known set of keys, in about one bit a key, without the keys.

Whoever asks at one of the keys gets its answer; at any other place the answer means nothing. The
bits X solve a random linear system over GF(2): for each key, the parity of X AND hash(key) is
its answer (Dietzfelbinger and Pagh, 2008, arXiv:0803.3693). A list of the keys would take twelve
bits for each of them here; and both sides would have to agree on which they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from audiovae.codec.integers import ByteReader, write_varint

_KEY_BYTES = 4


def pack_answers(answers: Mapping[int, bool]) -> bytes:
    """Code the answers to these keys: a varint of the length of X in bytes, then X."""
    num_bytes = -(-len(answers) // 8) if any(answers.values()) else 0
    solution = _solve(answers, num_bytes)
    while solution is None:  # dependent equations that contradict each other: others, then
        num_bytes += 1
        solution = _solve(answers, num_bytes)
    return write_varint(num_bytes) + solution.to_bytes(num_bytes, "little")


class Answers:
    """Reads what `pack_answers` wrote.

    Args:
        reader: Stands at the beginning of the answers, and behind them afterwards.
    """

    def __init__(self, reader: ByteReader) -> None:
        self._num_bytes = reader.varint()
        self._bits = int.from_bytes(reader.take(self._num_bytes), "little")

    def at(self, key: int) -> bool:
        """The answer to one of the keys; arbitrary for any other."""
        return (_hash(key, self._num_bytes) & self._bits).bit_count() % 2 == 1


def _hash(key: int, num_bytes: int) -> int:
    digest = hashlib.shake_128(key.to_bytes(_KEY_BYTES, "little")).digest(num_bytes)
    return int.from_bytes(digest, "little")


def _solve(answers: Mapping[int, bool], num_bytes: int) -> int | None:
    """Bits X with the right parity at every key, by Gaussian elimination; None if there are none.

    Equations are whole numbers; each is stored under its highest bit.
    """
    equations: dict[int, tuple[int, bool]] = {}
    for key, answer in answers.items():
        equation = _hash(key, num_bytes)
        while (highest := equation.bit_length()) in equations:
            known, known_answer = equations[highest]
            equation, answer = equation ^ known, answer != known_answer
        if equation:
            equations[highest] = (equation, answer)
        elif answer:
            return None
    solution = 0
    for highest in sorted(equations):  # all lower bits are decided by then
        equation, answer = equations[highest]
        if ((equation & solution).bit_count() % 2 == 1) != answer:
            solution |= 1 << (highest - 1)
    return solution
