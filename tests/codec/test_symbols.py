"""Floats to integers: tables, rows, ties, and what both sides make of them."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from audiovae.checkpoint import Provenance, load_checkpoint, load_model, save_vae
from audiovae.codec.group_coders import ResidualCoder
from audiovae.codec.symbols import (
    TIE_MARGIN,
    quantise,
    rows_and_ties,
    rows_asking,
    symbols_crc,
)
from audiovae.config import BottleneckConfig
from audiovae.errors import CheckpointError
from audiovae.models.bottlenecks.quantized import (
    FREQUENCY_BITS,
    Bottleneck,
    FrequencyTable,
    residual_bits,
)
from tests.codec.tiny import TINY, tiny_vae

CONFIG = BottleneckConfig()
TABLE = FrequencyTable.build(CONFIG)
BOTTLENECK = Bottleneck(CONFIG, 5)
LOW, HIGH = math.log(CONFIG.min_scale), math.log(CONFIG.max_scale)


def test_rows_are_symmetric_whole_and_without_zeros() -> None:
    assert len(TABLE.boundaries) == CONFIG.scale_table_size - 1
    for index in range(TABLE.num_rows):
        row = TABLE.row(index).astype(np.int64)
        assert row.sum() == 1 << FREQUENCY_BITS
        assert row.min() >= 1
        assert len(row) == 2 * TABLE.limits()[index] + 1
        np.testing.assert_array_equal(row, row[::-1])


def test_the_widest_rows_reach_eight_deviations() -> None:
    assert TABLE.limits()[0] == 16
    assert TABLE.limits()[-1] == 8 * CONFIG.max_scale


@pytest.mark.parametrize("scale", [0.08, 0.11, 0.15, 0.3, 0.77, 1.0, 3.3, 20.0, 64.0])
def test_a_row_costs_what_the_model_estimates(scale: float) -> None:
    """On average over residuals of just that scale: within 1 % and a hundredth of a bit."""
    log_scale = math.log(scale)
    limit = 8 * 64
    residuals = torch.arange(-limit, limit + 1).double()
    bits = residual_bits(residuals, torch.full_like(residuals, log_scale)).numpy()
    probability = 2.0**-bits
    index = int(np.searchsorted(TABLE.boundaries, log_scale, side="right"))
    reach = int(TABLE.limits()[index])
    inside = slice(limit - reach, limit + reach + 1)
    paid = FREQUENCY_BITS - np.log2(TABLE.row(index))
    estimate = float((probability * bits)[inside].sum())
    assert float((probability[inside] * paid).sum()) <= estimate * 1.01 + 0.01


def test_the_table_is_the_same_every_time() -> None:
    for name, tensor in FrequencyTable.build(CONFIG).tensors().items():
        assert torch.equal(tensor, TABLE.tensors()[name])


def test_a_model_file_holds_the_table(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_vae(path, tiny_vae(), Provenance(), ())
    model = load_model(path, vocoder=None)
    stored = load_checkpoint(path).tensors
    assert model.frequency_table is not None
    for name, tensor in model.frequency_table.tensors().items():
        assert torch.equal(stored[f"codec.{name}"], tensor)


def test_a_file_without_the_table_gets_the_same_one(tmp_path: Path) -> None:
    path, old = tmp_path / "model.safetensors", tmp_path / "old.safetensors"
    save_vae(path, tiny_vae(), Provenance(), ())
    tensors = {name: t for name, t in load_file(path).items() if not name.startswith("codec.")}
    save_file(tensors, old, metadata=metadata_of(path))
    assert load_model(old, vocoder=None).id == load_model(path, vocoder=None).id


@pytest.mark.parametrize("name", ["boundaries", "frequencies", "offsets"])
def test_a_damaged_table_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    save_vae(path, tiny_vae(), Provenance(), ())
    tensors = load_file(path)
    tensors[f"codec.{name}"][3] += 2
    save_file(tensors, path, metadata=metadata_of(path))
    if name == "boundaries":
        tensors[f"codec.{name}"] = tensors[f"codec.{name}"][1:].clone()
        save_file(tensors, path, metadata=metadata_of(path))
    with pytest.raises(CheckpointError, match="damaged table"):
        load_model(path, vocoder=None)


def test_identity_covers_weights_table_and_settings(tmp_path: Path) -> None:
    quality = TINY.quality
    assert quality is not None
    wider = TINY.model_copy(update={"quality": quality.model_copy(update={"min_lambda": 33.0})})
    finer = TINY.model_copy(
        update={"bottleneck": TINY.bottleneck.model_copy(update={"scale_table_size": 50})}
    )
    louder = tiny_vae()
    with torch.no_grad():
        louder.top += 1e-3
    models = [tiny_vae(), louder, tiny_vae(config=wider), tiny_vae(config=finer)]
    ids = []
    for number, vae in enumerate(models):
        path = tmp_path / f"{number}.safetensors"
        save_vae(path, vae, Provenance(), ())
        ids.append(load_model(path, vocoder=None).id)
    assert len(set(ids)) == len(ids)


def test_only_a_quantized_model_has_a_table(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    config = TINY.model_copy(update={"bottleneck": BottleneckConfig(kind="gaussian")})
    save_vae(path, tiny_vae_of(config), Provenance(), ())
    assert load_model(path, vocoder=None).frequency_table is None


@given(
    st.lists(st.floats(LOW - 1, HIGH + 1) | st.integers(0, 62).map(lambda i: TABLE.boundaries[i])),
    st.integers(0, 2**32 - 1),
)
def test_both_sides_take_the_same_row(scales: list[float], seed: int) -> None:
    """Whatever the decoder is off by, up to the margin; and it asks only what is known."""
    generator = np.random.default_rng(seed)
    encoder_side = np.array(scales) + generator.uniform(-3, 3, len(scales)) * TIE_MARGIN
    decoder_side = encoder_side + generator.uniform(-0.999, 0.999, len(scales)) * TIE_MARGIN
    rows, ties = rows_and_ties(TABLE, encoder_side)
    np.testing.assert_array_equal(rows_asking(TABLE, decoder_side, ties.__getitem__), rows)


def test_ties_are_few_and_at_the_boundaries() -> None:
    log_scale = np.linspace(LOW, HIGH, 1_000_001)
    rows, ties = rows_and_ties(TABLE, log_scale)
    np.testing.assert_array_equal(rows, np.searchsorted(TABLE.boundaries, log_scale, side="right"))
    distance = np.abs(log_scale[list(ties), None] - TABLE.boundaries[None]).min(axis=1)
    assert distance.max() < 2 * TIE_MARGIN
    assert 0 < len(ties) < 0.005 * len(log_scale)
    assert (rows[0], rows[-1]) == (0, TABLE.num_rows - 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_a_broken_scale_still_has_a_row(value: float) -> None:
    rows, ties = rows_and_ties(TABLE, np.array([value]))
    assert 0 <= rows[0] < TABLE.num_rows
    assert len(ties) == 0


def random_group(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    posterior = 3 * torch.randn(2, 5, 12, generator=generator)
    return posterior, torch.randn(2, 10, 12, generator=generator)


def test_the_decoder_restores_the_encoders_latent_exactly() -> None:
    posterior, prior = random_group(0)
    valid = [12, 7]
    sample, symbols = quantise(BOTTLENECK, TABLE, posterior, prior, valid)
    mask = torch.ones(2, 1, 12)
    mask[1, :, 7:] = 0
    residuals = np.zeros((2, 5, 12), dtype=np.int32)
    for row, steps in enumerate(valid):
        residuals[row, :, :steps] = symbols[row].symbols.reshape(5, steps)
        assert len(symbols[row].rows) == 5 * steps
    coder = ResidualCoder(BOTTLENECK, TABLE)
    restored = coder.restore(0, prior, lambda _shape, _rows_of: residuals)
    assert torch.equal(restored.latent * mask, sample.latent * mask)


def test_residuals_are_the_rounded_distance_from_the_prior_mean() -> None:
    posterior, prior = random_group(1)
    settled = BOTTLENECK.settle(posterior, prior)
    sample, _ = quantise(BOTTLENECK, TABLE, posterior, prior, [12, 12])
    assert torch.equal(sample.latent, settled.latent)
    assert torch.equal(sample.bits, settled.bits)


def test_a_residual_beyond_its_row_is_clipped_and_both_sides_know() -> None:
    posterior, prior = random_group(2)
    prior[:, 5:] = -20.0  # the narrowest scale
    _, symbols = quantise(BOTTLENECK, TABLE, posterior * 1000, prior, [12, 12])
    assert np.abs(symbols[0].symbols).max() == TABLE.limits()[0]


def test_broken_weights_are_named() -> None:
    posterior, prior = random_group(3)
    posterior[0, 0, 0] = math.nan
    with pytest.raises(CheckpointError, match="expected finite latents"):
        quantise(BOTTLENECK, TABLE, posterior, prior, [12, 12])


def test_the_checksum_is_of_little_endian_32_bit_integers_and_continues() -> None:
    residuals = np.array([0, 1, -1, 300], dtype=np.int32)
    whole = b"".join(int(value).to_bytes(4, "little", signed=True) for value in residuals)
    assert symbols_crc(residuals) == zlib.crc32(whole)
    assert symbols_crc(residuals[2:], symbols_crc(residuals[:2])) == zlib.crc32(whole)


def test_boundaries_that_nearly_touch_are_refused() -> None:
    boundaries = TABLE.boundaries.copy()
    boundaries[5] = boundaries[4] + TIE_MARGIN
    close = replace(TABLE, boundaries=boundaries)
    with pytest.raises(CheckpointError, match="damaged table"):
        FrequencyTable.from_tensors(close.tensors())


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata())


def tiny_vae_of(config):  # type: ignore[no-untyped-def]
    from audiovae.models.hvae import HVAE

    return HVAE(config)
