"""Rows of mel bands: features over frequency and time, seen from outside as any other model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.config import ModelConfig
from audiovae.errors import ConfigError
from audiovae.latents import Conditions
from audiovae.models.blocks import ConvNeXtBlock, bands_to_rows, rows_to_bands
from audiovae.models.hvae import HVAE
from tests.small_models import stirred
from tests.tones import tiny_config

ROWS = 8
ROUNDING = 1e-5
"""Of a sum taken in another order, in nats or units of a feature."""


def rows_model() -> HVAE:
    torch.manual_seed(0)
    vae = tiny_config().vae.model_dump() | {"rows": ROWS, "width": 16, "kernel_size": 5}
    return stirred(HVAE(tiny_config(vae=vae, bottleneck={"kind": "gaussian"}, quality=False)), 0)


def log_mels(batch: int, frames: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return -5 + 2 * torch.randn(batch, 128, frames, generator=draw)


def test_bands_go_to_rows_and_back() -> None:
    log_mel = log_mels(2, 6)
    rows = bands_to_rows(log_mel, ROWS)
    assert rows.shape == (2, 16, ROWS * 6)
    assert torch.equal(rows[:, 3, 6:12], log_mel[:, 16 + 3])  # row 1, its fourth band
    assert torch.equal(rows_to_bands(rows, ROWS), log_mel)


def test_a_block_treats_a_sound_alike_wherever_it_lies_in_the_spectrum() -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(4, expansion=2, kernel_size=3, rows=16)
    low = torch.zeros(1, 4, 16, 10)
    low[:, :, 3:6] = torch.randn(1, 4, 3, 10)
    high = low.roll(6, dims=2)
    mask = torch.ones(1, 1, 160)
    outputs = [block(one.flatten(2), mask).unflatten(2, (16, 10)) for one in (low, high)]
    torch.testing.assert_close(outputs[0].roll(6, 2), outputs[1], rtol=0, atol=ROUNDING)
    assert not torch.equal(outputs[0], outputs[1])


@torch.inference_mode()
def test_latents_and_their_bits_are_of_steps() -> None:
    model, frames = rows_model(), torch.tensor([100, 128])
    output = model.encode(log_mels(2, 128), frames, Conditions())
    assert output.log_mel.shape == (2, 128, 128)
    for group, bits, stride in zip(
        output.latents.groups, output.group_bits, output.latents.strides, strict=True
    ):
        assert group.shape == bits.shape == (2, 4 * ROWS, 128 // stride)
        assert not group[0, :, -(-100 // stride) :].any()
    decoded = model.decode(output.latents, 128)
    torch.testing.assert_close(decoded, output.log_mel, rtol=0, atol=ROUNDING)


@torch.inference_mode()
def test_padding_changes_nothing() -> None:
    model, signal = rows_model(), log_mels(1, 65)
    outputs = []
    for shape, filling in ((128, 0.0), (256, 9.0)):
        padded = torch.nn.functional.pad(signal, (0, shape - 65), value=filling)
        outputs.append(model.encode(padded, torch.tensor([65]), Conditions()).log_mel[:, :, :65])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=ROUNDING)


def test_what_rows_cannot_go_with_is_refused() -> None:
    config = rows_model().config.model_dump()
    with pytest.raises(ConfigError, match=r"vae.rows must divide spectrogram.num_mels \(128\)"):
        tiny_config(vae=config["vae"] | {"rows": 7})
    with pytest.raises(ConfigError, match=r"a \[pitch\] table needs vae.rows = 1"):
        tiny_config(vae=config["vae"], pitch={})
    assert ModelConfig().vae.rows == 1
