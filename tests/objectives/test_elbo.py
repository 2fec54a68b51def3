"""`audiovae.objectives.elbo`: rate and distortion, and how they are weighed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiovae.config import ObjectiveConfig
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE
from audiovae.models.output import VAEOutput
from audiovae.objectives.elbo import ElboTerms, elbo_terms, energy_error, statistics_error
from tests.small_models import tiny_vae
from tests.tones import tiny_config

COUNTS = torch.tensor([64, 40])


def log_mels(seed: int = 0) -> Tensor:
    return -5 + 2 * torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(seed))


def terms_at(log_lambda: float, objective: ObjectiveConfig) -> tuple[ElboTerms, VAEOutput]:
    model = tiny_vae()
    output = model.encode(log_mels(), COUNTS, Conditions(torch.full((2,), log_lambda)))
    return elbo_terms(model, log_mels(), output, objective), output


def test_distortion_is_the_mean_over_the_signals_cells() -> None:
    terms, output = terms_at(6.0, ObjectiveConfig(l1_weight=1.0, l2_weight=0.5, energy_weight=0))
    deviation = tiny_vae().mel_deviation[:, None]
    for row, count in enumerate(COUNTS.tolist()):
        error = (output.log_mel[row] - log_mels()[row])[:, :count]
        scaled = error / deviation
        expected = scaled.abs().mean() + 0.5 * scaled.square().mean()
        torch.testing.assert_close(terms.distortion[row], expected)
        decibels = 20 / math.log(10) * error.abs().mean()
        torch.testing.assert_close(terms.log_mel_l1_db[row], decibels)


def test_energy_is_compared_over_patches_and_not_cell_by_cell() -> None:
    """A gain is an error of that size; cells that only change places within a patch are none."""
    target, mask = log_mels(), torch.ones(2, 1, 64)
    torch.testing.assert_close(energy_error(target + 0.3, target, mask), torch.full((2,), 0.3))
    shuffled = target.unflatten(2, (-1, 4)).flip(3).flatten(2)
    patches = energy_error(shuffled, target, mask)
    assert (patches < 0.5 * (shuffled - target).abs().mean(dim=(1, 2))).all()


def test_the_median_of_a_noisy_cell_is_too_quiet_for_the_energy() -> None:
    """What minimises the L1 of a log-mel costs energy; what keeps the energy does not."""
    noisy, mask = log_mels(), torch.ones(2, 1, 64)
    median = torch.full_like(noisy, -5.0)
    louder = torch.full_like(noisy, float((2 * noisy).exp().mean().log() / 2))
    assert (energy_error(louder, noisy, mask) < 0.5 * energy_error(median, noisy, mask)).all()


def test_statistics_are_of_bands_over_time() -> None:
    """Frames that change places keep them; a clip that moves less, or has a gain, does not."""
    target, mask = 0.5 * log_mels(), torch.ones(2, 1, 64)
    reordered = target[:, :, torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    kept = statistics_error(reordered, target, mask)
    torch.testing.assert_close(kept, torch.zeros(2), atol=1e-5, rtol=0)
    gained = statistics_error(target + 0.3, target, mask)
    torch.testing.assert_close(gained, torch.full((2,), 0.15))
    mean = target.mean(dim=2, keepdim=True)
    calmer = statistics_error(mean + 0.5 * (target - mean), target, mask)
    expected = 0.25 * (target - mean).square().mean(dim=2).sqrt().mean(dim=1)
    torch.testing.assert_close(calmer, expected, atol=1e-3, rtol=1e-3)


def test_statistics_leave_out_padding_and_what_is_not_heard() -> None:
    target = log_mels()
    target[:, :, 40:] -= 20
    estimate = target.clone()
    estimate[:, :, 40:] += 7
    whole = torch.ones(2, 1, 64)
    torch.testing.assert_close(statistics_error(estimate, target, whole), torch.zeros(2))
    padded = torch.ones(2, 1, 64)
    padded[:, :, 40:] = 0
    estimate[:, :, 40:] += 50
    torch.testing.assert_close(statistics_error(estimate, target + 0, padded), torch.zeros(2))
    silent = statistics_error(
        torch.full((1, 128, 8), -11.5), torch.full((1, 128, 8), -11.5), whole[:1, :, :8]
    )
    assert torch.isfinite(silent).all()


def test_rate_is_bits_a_frame_of_signal() -> None:
    terms, output = terms_at(6.0, ObjectiveConfig())
    torch.testing.assert_close(terms.rate_bits_per_frame, output.level_bits().sum(dim=1) / COUNTS)


@pytest.mark.parametrize("log_lambda", [3.0, 10.0])
def test_lambda_weighs_distortion_against_rate(log_lambda: float) -> None:
    terms, _ = terms_at(log_lambda, ObjectiveConfig())
    root = math.exp(0.5 * log_lambda)
    expected = root * terms.distortion + terms.rate_bits_per_frame / root
    torch.testing.assert_close(terms.loss, expected)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_without_lambda_it_is_the_beta_vae_in_nats(beta: float) -> None:
    torch.manual_seed(0)
    model = HVAE(tiny_config(bottleneck={"kind": "gaussian"}, quality=False))
    output = model.encode(log_mels(), COUNTS, Conditions())
    terms = elbo_terms(model, log_mels(), output, ObjectiveConfig(beta=beta))
    nats = terms.rate_bits_per_frame * math.log(2)
    torch.testing.assert_close(terms.loss, 128 * terms.distortion + beta * nats)


def test_what_lies_in_the_padding_does_not_count() -> None:
    model, target = tiny_vae(), log_mels()
    output = model.encode(target, COUNTS, Conditions(torch.full((2,), 6.0)))
    changed = target.clone()
    changed[1, :, 40:] += 7
    before = elbo_terms(model, target, output, ObjectiveConfig())
    after = elbo_terms(model, changed, output, ObjectiveConfig())
    assert torch.equal(before.loss, after.loss)
