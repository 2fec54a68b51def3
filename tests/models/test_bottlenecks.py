"""The bottlenecks: what their bits mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from audiovae.config import BottleneckConfig
from audiovae.errors import ConfigError
from audiovae.models.bottlenecks import bottleneck_kinds, build_bottleneck
from audiovae.models.bottlenecks.quantized import Bottleneck as Quantized
from audiovae.models.bottlenecks.quantized import residual_bits

BITS_TOLERANCE = 1e-3
"""Relative error of float32 bits against float64 cell probabilities."""
DITHER_TOLERANCE_BITS = 0.02
"""A channel's mean bits under noise and under rounding, of 200 000 draws."""
KINDS = ["gaussian", "quantized"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw(kind: str, seed: int = 0, steps: int = 50) -> tuple[Tensor, Tensor]:
    """Raw posterior and prior features of 3 latent channels."""
    bottleneck = build_bottleneck(BottleneckConfig(kind=kind), 3)
    draw = generator(seed)
    posterior = torch.randn(2, bottleneck.posterior_channels, steps, generator=draw)
    prior = torch.randn(2, bottleneck.prior_channels, steps, generator=draw)
    return posterior, prior


def prior_with_scale(scale: float, steps: int) -> Tensor:
    """Raw features of one channel of a quantized prior with mean 0 and this scale."""
    low = math.log(BottleneckConfig().min_scale)
    above = math.log(scale) - low
    raw_scale = math.log(math.expm1(above)) - 2.4
    prior = torch.zeros(1, 2, steps)
    prior[:, 1] = raw_scale
    return prior


def test_kinds_are_the_modules() -> None:
    assert set(KINDS) <= set(bottleneck_kinds())


def test_unknown_kind_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"gaussian, quantized.*got 'vqq'"):
        build_bottleneck(BottleneckConfig(kind="vqq"), 3)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_their_generator(kind: str) -> None:
    bottleneck = build_bottleneck(BottleneckConfig(kind=kind), 3)
    posterior, prior = raw(kind)
    first, again, other = (
        bottleneck.draw(posterior, prior, torch.ones(1), generator(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first.latent, again.latent)
    assert not torch.equal(first.latent, other.latent)
    samples = [bottleneck.generate(prior, 1.0, generator(s)) for s in (1, 1, 2)]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


@pytest.mark.parametrize("kind", KINDS)
def test_settling_is_free_of_noise_and_gradients_reach_both_sides(kind: str) -> None:
    bottleneck = build_bottleneck(BottleneckConfig(kind=kind), 3)
    posterior, prior = (x.requires_grad_() for x in raw(kind))
    first, again = (bottleneck.settle(posterior, prior) for _ in range(2))
    assert torch.equal(first.latent, again.latent)
    drawn = bottleneck.draw(posterior, prior, torch.ones(1), generator())
    (drawn.bits.sum() + drawn.latent.square().sum()).backward()  # type: ignore[no-untyped-call]
    for features in (posterior, prior):
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()
        assert (features.grad.abs().sum(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize("scale", [0.08, 0.3, 1.0, 7.0, 64.0])
def test_quantized_bits_are_the_cell_probability(scale: float) -> None:
    residual = torch.arange(0, math.ceil(6 * scale) + 1).float()
    found = residual_bits(residual, torch.tensor(math.log(scale))).double().numpy()
    r = residual.double().numpy()
    probability = norm.sf((r - 0.5) / scale) - norm.sf((r + 0.5) / scale)
    np.testing.assert_allclose(found, -np.log2(probability), rtol=BITS_TOLERANCE, atol=1e-5)


def test_quantized_bits_stay_finite_far_out_and_symmetric() -> None:
    residual = torch.tensor([0.0, 40.0, -40.0, 1e4]).requires_grad_()
    log_scale = torch.full((4,), math.log(0.08)).requires_grad_()
    bits = residual_bits(residual, log_scale)
    bits.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(bits).all()
    assert bits[1].item() == bits[2].item() > 1e5
    for given in (residual, log_scale):
        assert given.grad is not None
        assert torch.isfinite(given.grad).all()


@pytest.mark.parametrize("scale", [0.7, 2.0, 10.0])
def test_noise_costs_what_rounding_costs(scale: float) -> None:
    """The bits that training minimises are the bits that a file holds, in expectation."""
    steps = 200_000
    prior = prior_with_scale(scale, steps)
    posterior = scale * torch.randn(1, 1, steps, generator=generator())
    quantized = Quantized(BottleneckConfig(), 3)
    assert float(quantized.split_prior(prior).log_scale[0, 0, 0].exp()) == pytest.approx(scale)
    drawn = quantized.draw(posterior, prior, torch.ones(1), generator(1)).bits.mean()
    rounded = quantized.settle(posterior, prior).bits.mean()
    assert abs(float(drawn - rounded)) < DITHER_TOLERANCE_BITS


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 5.0])
def test_what_is_generated_is_as_likely_as_it_costs(scale: float) -> None:
    """The chance of a residual is that of the code that it would have."""
    steps = 200_000
    drawn = Quantized(BottleneckConfig(), 1).generate(
        prior_with_scale(scale, steps), 1.0, generator()
    )
    values, counts = drawn.flatten().round().unique(return_counts=True)
    expected = torch.exp2(-residual_bits(values, torch.tensor(math.log(scale))))
    np.testing.assert_allclose(counts / steps, expected, atol=0.005)


def test_an_autoencoder_remembers_signal_alone() -> None:
    bottleneck = build_bottleneck(BottleneckConfig(kind="deterministic"), 3)
    residual = 2 * torch.randn(2, 3, 400, generator=generator())
    mask = torch.zeros(2, 1, 400)
    mask[:, :, :100] = 1
    for _ in range(500):
        bottleneck.draw(residual.where(mask > 0, torch.tensor(9.0)), residual, mask, None)
    noise = bottleneck.generate(torch.zeros(1, 3, 100_000), 1.0, generator())
    assert float(noise.mean()) == pytest.approx(0, abs=0.3)
    assert float(noise.std()) == pytest.approx(2, rel=0.1)


def test_quantized_latents_are_whole_steps_from_the_prior_mean() -> None:
    posterior, prior = raw("quantized")
    quantized = Quantized(BottleneckConfig(), 3)
    mean = quantized.split_prior(prior).mean
    settled = quantized.settle(posterior, prior).latent
    torch.testing.assert_close(settled - mean, torch.round(settled - mean), rtol=0, atol=1e-5)
    assert float((settled - posterior).abs().max()) <= 0.5 + 1e-5
    drawn = quantized.draw(posterior, prior, torch.ones(1), generator()).latent
    assert float((drawn - posterior).abs().max()) <= 0.5 + 1e-5


def test_quantized_prior_scale_stays_in_its_range() -> None:
    config = BottleneckConfig(min_scale=0.1, max_scale=4.0)
    prior = torch.cat([torch.zeros(1, 1, 3), torch.tensor([[[-1e3, 0.0, 1e3]]])], dim=1)
    scale = Quantized(config, 3).split_prior(prior).log_scale.exp().flatten().tolist()
    assert scale[0] == pytest.approx(0.1)
    assert 0.1 < scale[1] < 4.0
    assert scale[2] == pytest.approx(4.0)


def test_gaussian_bits_are_the_kl_divergence() -> None:
    posterior, prior = raw("gaussian")
    bottleneck = build_bottleneck(BottleneckConfig(kind="gaussian"), 3)
    zero, one = torch.zeros(2, 3, 50), torch.ones(2, 3, 50)
    # The posterior relative to the prior: raw features give shift and log ratio of scales.
    mean, _ = prior.chunk(2, dim=1)
    shifted = bottleneck.settle(posterior, torch.zeros_like(prior))
    ratio = (6.0 * torch.tanh(posterior.chunk(2, dim=1)[1] / 6.0)).exp()
    expected = kl_divergence(Normal(shifted.latent, ratio), Normal(zero, one)) / math.log(2)
    torch.testing.assert_close(shifted.bits, expected, rtol=1e-4, atol=1e-5)
    # A prior elsewhere moves both, and the divergence stays.
    moved = bottleneck.settle(posterior, prior)
    torch.testing.assert_close(moved.bits, shifted.bits)
    at_prior = bottleneck.settle(torch.zeros_like(posterior), prior)
    torch.testing.assert_close(at_prior.latent, mean)
    assert not at_prior.bits.any()


def test_gaussian_draws_have_the_posteriors_moments() -> None:
    bottleneck = build_bottleneck(BottleneckConfig(kind="gaussian"), 3)
    posterior = torch.tensor([1.5, math.log(0.5)])[None, :, None].expand(1, 2, 100_000)
    prior = torch.tensor([3.0, math.log(2.0)])[None, :, None].expand(1, 2, 100_000)
    latent = bottleneck.draw(posterior, prior, torch.ones(1), generator()).latent
    assert float(latent.mean()) == pytest.approx(3.0 + 2.0 * 1.5, abs=0.05)
    assert float(latent.std()) == pytest.approx(2.0 * 0.5, rel=0.05)


def test_gaussian_scales_stay_finite_and_can_come_back() -> None:
    bottleneck = build_bottleneck(BottleneckConfig(kind="gaussian"), 3)
    posterior = torch.tensor([[[0.0], [20.0]]]).requires_grad_()
    bits = bottleneck.settle(posterior, torch.full((1, 2, 1), 1e4)).bits
    bits.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(bits).all()
    assert posterior.grad is not None
    assert float(posterior.grad[0, 1, 0]) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_temperature_zero_is_the_prior_mean(kind: str) -> None:
    bottleneck = build_bottleneck(BottleneckConfig(kind=kind), 3)
    _, prior = raw(kind)
    sample = bottleneck.generate(prior, 0.0, generator())
    torch.testing.assert_close(sample, prior.chunk(2, dim=1)[0])
