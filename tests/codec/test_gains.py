"""Gains: a decode gets the strength of its sound, at a price that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiovae.checkpoint import Model
from audiovae.chunks import padded_frames
from audiovae.codec import DamagedChunkError, decode_chunks, encode_chunks
from audiovae.codec.coder import SymbolDecoder, SymbolEncoder
from audiovae.codec.grid_symbols import (
    GRID_TABLE,
    NUM_ROWS,
    gains_of,
    grid_row,
    grid_symbols,
    symbol_bits,
)
from audiovae.codec.integers import ByteReader
from audiovae.errors import BitstreamError
from audiovae.gains import (
    MAX_STEPS,
    NUM_BANDS,
    STEP_NATS,
    apply_gains,
    measure_gains,
    num_blocks,
)
from tests.codec.second_decoder import gain_frequencies
from tests.codec.tiny import conditions, lively_log_mel


def some_gains(frames: int, seed: int, deviation: float = 2.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    drawn = np.rint(generator.normal(size=(NUM_BANDS, num_blocks(frames))) * deviation)
    return np.clip(drawn, -MAX_STEPS, MAX_STEPS).astype(np.int32)


@given(st.integers(1, 1024), st.integers(0, 1000), st.floats(0.0, 40.0))
def test_gains_come_back(frames: int, seed: int, deviation: float) -> None:
    gains = some_gains(frames, seed, deviation)
    symbols, row = grid_symbols(gains)
    encoder = SymbolEncoder()
    encoder.encode(symbols, np.full_like(symbols, row), GRID_TABLE)
    coded = encoder.finish()
    read = SymbolDecoder(coded).decode(np.full_like(symbols, row), GRID_TABLE)
    np.testing.assert_array_equal(gains_of(read), gains)
    assert len(coded) <= symbol_bits(symbols, row) / 8 + 8


def test_the_row_is_the_cheapest() -> None:
    symbols, row = grid_symbols(some_gains(1024, 0))
    costs = [symbol_bits(symbols, other) for other in range(NUM_ROWS)]
    assert min(costs) == costs[row] < 0.8 * max(costs)
    assert symbol_bits(*grid_symbols(np.zeros((NUM_BANDS, 32), np.int32))) < 1


@pytest.mark.parametrize("row", range(NUM_ROWS))
def test_the_table_is_that_of_the_format(row: int) -> None:
    assert GRID_TABLE.row(row).tolist() == gain_frequencies(row)


@given(st.integers(1, 1024), st.integers(0, 1000))
def test_a_decode_that_is_off_by_gains_is_put_right(frames: int, seed: int) -> None:
    """But for what a step leaves."""
    sound = lively_log_mel(frames, seed)[0]
    quiet = sound - 3.1
    mended = apply_gains(quiet, measure_gains(sound, quiet))
    assert float((mended - sound).abs().max()) <= STEP_NATS / 2 + 1e-5


def test_loud_places_decide() -> None:
    """A quiet stretch that decodes too loud does not weaken the attack behind it."""
    sound = torch.full((128, 128), -9.0)
    sound[:, 64:] = 0.0
    decoded = sound.clone()
    decoded[:, :64] += 2.0
    mended = apply_gains(decoded, measure_gains(sound, decoded))
    assert float(mended[:, 64:].abs().max()) < 0.1
    assert float(mended[:, :32].mean()) < -8.5


@pytest.mark.parametrize("frames", [1, 5, 31, 33, 431, 1024])
def test_the_decode_of_a_chunk_has_the_power_of_its_sound(model: Model, frames: int) -> None:
    """Random weights decode anything but the sound; its strength is there all the same."""
    log_mel = lively_log_mel(frames, frames, padded_frames(frames))
    count = torch.tensor([frames])
    chunk = encode_chunks(model, log_mel, count, conditions(1))[0]
    decoded, _ = decode_chunks(model, [chunk], log_mel.shape[2], conditions(1))
    bare = model.vae.encode(log_mel, count, conditions(1)).log_mel

    def strength(values: torch.Tensor) -> torch.Tensor:
        by_band = (1.5 * values[0, :, :frames]).exp().reshape(NUM_BANDS, 16, frames)
        return by_band.sum(dim=(1, 2)).log() / 1.5

    before = (strength(bare) - strength(log_mel)).abs()
    after = (strength(decoded) - strength(log_mel)).abs()
    assert float(after.mean()) < 0.6 * float(before.mean())


def test_more_than_an_encoder_writes_is_refused() -> None:
    symbols, _ = grid_symbols(np.full((NUM_BANDS, 2), MAX_STEPS, np.int32))
    symbols[-1] += 1
    with pytest.raises(BitstreamError, match="gains of -31 to 31 steps, got 32"):
        gains_of(symbols)


@pytest.mark.parametrize(("data", "message"), [(b"", "cut short"), (b"\x20", "below 32, got 32")])
def test_a_row_that_is_not_there_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        grid_row(ByteReader(data, "a test"))


def test_a_chunk_with_such_a_row_is_named(model: Model) -> None:
    log_mel = lively_log_mel(64, 0)
    chunk = encode_chunks(model, log_mel, torch.tensor([64]), conditions(1))[0]
    place = chunk.corrections_bytes
    broken = replace(chunk, payload=chunk.payload[:place] + b"\xff" + chunk.payload[place + 1 :])
    with pytest.raises(DamagedChunkError, match="chunk 0 of channel 0"):
        decode_chunks(model, [broken], 64, conditions(1))


def test_gradients_pass_the_rounding() -> None:
    """A level that gains make good is worth nothing to a loss behind them."""
    sound = lively_log_mel(64, 3)[0]
    decoded = (0.8 * sound - 1).requires_grad_()
    steps = measure_gains(sound, decoded)
    assert (steps == steps.round()).all()
    (apply_gains(decoded, steps) * torch.randn(128, 64).abs()).sum().backward()
    of_place = decoded.grad
    assert of_place is not None
    assert abs(float(of_place.sum())) < 1e-3 * float(of_place.abs().sum())
