"""`audiovae.models.blocks`: masks, strides and conditioning."""

from __future__ import annotations

import pytest
import torch

from audiovae.models.blocks import ChannelNorm, ConvNeXtBlock, Downsample, Upsample, step_mask


def features(batch: int = 2, channels: int = 8, steps: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, channels, steps, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("frames", "stride", "covered"), [(1, 4, 1), (4, 4, 1), (5, 4, 2), (12, 4, 3), (7, 1, 7)]
)
def test_a_step_counts_if_it_covers_one_frame_of_signal(
    frames: int, stride: int, covered: int
) -> None:
    mask = step_mask(torch.tensor([frames, 0]), 10, stride)
    assert mask.shape == (2, 1, 10)
    assert mask[0, 0].tolist() == [1.0] * covered + [0.0] * (10 - covered)
    assert not mask[1].any()


def test_a_masked_block_gives_what_the_signal_alone_gives() -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(8, expansion=2, kernel_size=7)
    signal = features(steps=16)
    padded = torch.nn.functional.pad(signal, (0, 8))
    alone = block(signal, torch.ones(2, 1, 16))
    inside = block(padded, step_mask(torch.tensor([16, 16]), 24, 1))
    torch.testing.assert_close(inside[:, :, :16], alone)
    assert not inside[:, :, 16:].any()


@pytest.mark.parametrize(("rows", "steps", "dilation"), [(1, 24, 2), (1, 25, 4), (4, 10, 3)])
def test_a_dilated_block_is_the_dilated_convolution(rows: int, steps: int, dilation: int) -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(8, expansion=2, kernel_size=5, rows=rows, dilation=dilation)
    signal = features(steps=rows * steps)
    wide = (2 * dilation,) if rows == 1 else (2, 2 * dilation)
    gaps = (dilation,) if rows == 1 else (1, dilation)
    convolve = torch.nn.functional.conv1d if rows == 1 else torch.nn.functional.conv2d
    cells = signal if rows == 1 else signal.unflatten(2, (rows, steps))
    kernel, bias = block.depthwise.weight, block.depthwise.bias
    mixed = convolve(cells, kernel, bias, padding=wide, dilation=gaps, groups=8).flatten(2)
    # The same block over what a plain kernel leaves in its middle: nothing else may differ.
    plain = ConvNeXtBlock(8, expansion=2, kernel_size=1)
    rest = {k: v for k, v in block.state_dict().items() if not k.startswith("depthwise")}
    plain.load_state_dict(rest, strict=False)
    with torch.no_grad():
        plain.depthwise.weight.fill_(1)
        assert plain.depthwise.bias is not None
        plain.depthwise.bias.zero_()
    mask = torch.ones(2, 1, rows * steps)
    expected = signal + plain(mixed, mask) - mixed
    torch.testing.assert_close(block(signal, mask), expected)


def test_a_conditioned_block_begins_neutral_and_then_listens() -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(8, expansion=2, kernel_size=7, context_channels=3)
    mask, signal = torch.ones(2, 1, 24), features()
    contexts = torch.randn(2, 2, 3)
    assert torch.equal(block(signal, mask, contexts[0]), block(signal, mask, contexts[1]))
    assert block.film is not None
    torch.nn.init.normal_(block.film.weight)
    assert not torch.equal(block(signal, mask, contexts[0]), block(signal, mask, contexts[1]))
    with pytest.raises(ValueError, match="expected a context"):
        block(signal, mask)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_down_and_up_are_mirrors(stride: int) -> None:
    """A map that copies each step into a channel of its own, and back, is the identity."""
    down, up = Downsample(1, stride, stride), Upsample(stride, 1, stride)
    with torch.no_grad():
        down.convolution.weight.copy_(torch.eye(stride)[:, None])
        up.linear.weight.copy_(torch.eye(stride)[:, :, None])
        for layer in (down.convolution, up.linear):
            assert layer.bias is not None
            layer.bias.zero_()
    signal = features(channels=1)
    coarse = down(signal, torch.ones(2, 1, 24 // stride))
    assert coarse.shape == (2, stride, 24 // stride)
    assert torch.equal(up(coarse, torch.ones(2, 1, 24)), signal)


def test_upsample_keeps_channels_together() -> None:
    up = Upsample(5, 3, 4)
    assert up(features(channels=5, steps=6), torch.ones(2, 1, 24)).shape == (2, 3, 24)


def test_channel_norm_is_step_by_step() -> None:
    normal = ChannelNorm(8)(features())
    torch.testing.assert_close(normal.mean(dim=1), torch.zeros(2, 24), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        normal.std(dim=1, correction=0), torch.ones(2, 24), rtol=1e-3, atol=0
    )
