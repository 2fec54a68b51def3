"""The range coder: whole arrays in, the same arrays out, and integers all the way."""

from __future__ import annotations

import math

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovae.codec.coder import SymbolDecoder, SymbolEncoder
from audiovae.codec.integers import ByteReader, write_varint
from audiovae.codec.retrieval import Answers, pack_answers
from audiovae.config import BottleneckConfig
from audiovae.errors import BitstreamError
from audiovae.models.bottlenecks.quantized import FREQUENCY_BITS, FrequencyTable
from tests.codec.second_decoder import SecondDecoder

TABLE = FrequencyTable.build(BottleneckConfig(max_scale=16.0, scale_table_size=20))
TOTAL = 1 << FREQUENCY_BITS


def random_calls(seed: int, sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Residuals and indices of several calls; every residual of a row is possible."""
    generator = np.random.default_rng(seed)
    calls = []
    for size in sizes:
        indices = generator.integers(TABLE.num_rows, size=size).astype(np.int32)
        limits = TABLE.limits()[indices]
        wide = np.rint(generator.normal(size=size) * limits / 4)
        residuals = np.clip(wide, -limits, limits).astype(np.int32)
        calls.append((residuals, indices))
    return calls


def encoded(calls: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    encoder = SymbolEncoder()
    for residuals, indices in calls:
        encoder.encode(residuals, indices, TABLE)
    return encoder.finish()


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 200), max_size=6))
def test_arrays_come_back(seed: int, sizes: list[int]) -> None:
    calls = random_calls(seed, sizes)
    decoder = SymbolDecoder(encoded(calls))
    for residuals, indices in calls:
        np.testing.assert_array_equal(decoder.decode(indices, TABLE), residuals)


@pytest.mark.parametrize("seed", range(5))
def test_a_second_decoder_reads_the_same(seed: int) -> None:
    calls = random_calls(seed, [40, 0, 300])
    decoder = SecondDecoder(encoded(calls))
    for residuals, indices in calls:
        for place in np.argsort(indices, kind="stable"):
            row = TABLE.row(int(indices[place])).tolist()
            assert decoder.decode(row) == residuals[place]


@pytest.mark.parametrize("index", [0, 7, TABLE.num_rows - 1])
def test_the_library_codes_with_our_integers_and_no_others(index: int) -> None:
    """At the first and last quantile of every symbol the decoder gives just that symbol."""
    row = TABLE.row(index).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(row)])
    weights = constriction.stream.model.Categorical(row - 1.0, perfect=False)
    scale = (2**64 - 1) >> FREQUENCY_BITS
    for symbol in range(len(row)):
        for quantile in (first[symbol], first[symbol + 1] - 1):
            point = int(quantile) * scale
            words = np.array([point >> 32, point & 0xFFFFFFFF], dtype=np.uint32)
            assert constriction.stream.queue.RangeDecoder(words).decode(weights) == symbol


def test_nothing_coded_takes_no_bytes() -> None:
    assert encoded([]) == b""
    assert encoded(random_calls(0, [0, 0])) == b""


def test_bytes_are_those_that_the_frequencies_say() -> None:
    calls = random_calls(3, [5000])
    residuals, indices = calls[0]
    limits = TABLE.limits()
    bits = sum(
        FREQUENCY_BITS - math.log2(TABLE.row(index)[residual + limits[index]])
        for residual, index in zip(residuals.tolist(), indices.tolist(), strict=True)
    )
    assert bits / 8 <= len(encoded(calls)) <= bits / 8 + 8


@given(st.binary(max_size=60), st.integers(0, 2**32 - 1))
def test_random_words_decode_to_something_or_are_refused(data: bytes, seed: int) -> None:
    ((_, indices),) = random_calls(seed, [100])
    try:
        residuals = SymbolDecoder(data).decode(indices, TABLE)
    except BitstreamError:
        return
    assert (np.abs(residuals) <= TABLE.limits()[indices]).all()


@given(st.integers(0, 2**63 - 1))
def test_varints_come_back(value: int) -> None:
    reader = ByteReader(write_varint(value), "a test")
    assert (reader.varint(), reader.remaining) == (value, 0)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 9, b"\xff" * 20])
def test_varints_that_are_cut_short_or_too_long_are_refused(data: bytes) -> None:
    with pytest.raises(BitstreamError, match="expected"):
        ByteReader(data, "a test").varint()


def test_negative_varints_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 <= value"):
        write_varint(-1)


@given(st.dictionaries(st.integers(0, 1 << 30), st.booleans(), max_size=80), st.binary(max_size=5))
def test_answers_come_back(answers: dict[int, bool], rest: bytes) -> None:
    reader = ByteReader(pack_answers(answers) + rest, "a test")
    read = Answers(reader)
    assert {key: read.at(key) for key in answers} == answers
    assert reader.take(reader.remaining) == rest


@pytest.mark.parametrize("count", [1, 20, 200, 600, 20_000])
def test_answers_cost_a_bit_each(count: int) -> None:
    """And time grows no faster than their number: 20 000 take about a second."""
    generator = np.random.default_rng(count)
    keys = generator.choice(50_000, count, replace=False).tolist()
    answers = dict(zip(keys, (generator.random(count) < 0.5).tolist(), strict=True))
    packed = pack_answers(answers)
    assert len(packed) <= 5 + count / 8 * (1.0 if count < 256 else 1.3)
    read = Answers(ByteReader(packed, "a test"))
    assert all(read.at(key) == answer for key, answer in answers.items())


def test_no_answers_cost_a_byte() -> None:
    assert pack_answers({}) == b"\0"
    assert pack_answers({3: False, 70_000: False}) == b"\0"


def test_answers_of_rubbish_are_answers_or_refused() -> None:
    with pytest.raises(BitstreamError, match="a test"):
        Answers(ByteReader(b"\xff\xff\x7f" + bytes(10), "a test"))
    assert Answers(ByteReader(b"\x02\xff\xff", "a test")).at(9) in (True, False)
