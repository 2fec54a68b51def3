"""The terms of the ELBO, against densities that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Laplace

from audiovae.analysis.likelihood import UnitActivity, likelihood, log_normaliser
from audiovae.config import ObjectiveConfig
from audiovae.errors import ConfigError
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE
from audiovae.objectives.elbo import elbo_terms
from tests.small_models import stirred
from tests.tones import tiny_config

COUNTS = torch.tensor([64, 40])


def model() -> HVAE:
    config = tiny_config(quality=False, bottleneck={"kind": "gaussian"})
    return stirred(HVAE(config), seed=1)


def log_mels() -> torch.Tensor:
    return -5 + 2 * torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("l1", "l2"), [(1.0, 0.25), (3.0, 0.0), (0.0, 0.7), (5.0, 2.0)])
def test_the_density_integrates_to_one(l1: float, l2: float) -> None:
    total, _ = quad(lambda e: math.exp(-(l1 * abs(e) + l2 * e * e)), -40, 40, points=[0])
    assert log_normaliser(l1, l2) == pytest.approx(math.log(total), abs=1e-6)


def test_no_weights_are_no_density() -> None:
    with pytest.raises(ConfigError, match="l1_weight or l2_weight"):
        log_normaliser(0.0, 0.0)


def test_the_reconstruction_term_is_a_laplacian_of_the_log_mel() -> None:
    vae, log_mel = model(), log_mels()
    output = vae.encode(log_mel, COUNTS, Conditions())
    objective = ObjectiveConfig(l1_weight=3.0, l2_weight=0.0)
    found = likelihood(vae, log_mel, output, objective).reconstruction
    density = Laplace(output.log_mel, vae.mel_deviation[:, None] / 3.0).log_prob(log_mel)
    for item, count in enumerate(COUNTS.tolist()):
        expected = density[item, :, :count].sum() / count
        assert float(found[item]) == pytest.approx(float(expected), rel=1e-4)


def test_the_loss_is_the_negative_elbo_but_for_a_constant() -> None:
    """With beta 1 and without the energy term, training maximises the bound itself."""
    vae, log_mel = model(), log_mels()
    objective = ObjectiveConfig(l1_weight=2.0, l2_weight=0.5, energy_weight=0.0, beta=1.0)
    sums = []
    for seed in range(3):
        output = vae(log_mel, COUNTS, Conditions(), torch.Generator().manual_seed(seed))
        bound = likelihood(vae, log_mel, output, objective).elbo
        sums.append(bound + elbo_terms(vae, log_mel, output, objective).loss)
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(sums[0], sums[2], rtol=1e-4, atol=1e-2)


def test_the_loss_of_a_lambda_is_such_a_bound_too() -> None:
    """Both in bits, at each item's own lambda."""
    vae, log_mel = stirred(HVAE(tiny_config()), seed=1), log_mels()
    objective = ObjectiveConfig(l1_weight=2.0, l2_weight=0.5, energy_weight=0.0)
    conditions = Conditions(torch.tensor([4.0, 8.0]))
    sums = []
    for seed in range(2):
        output = vae(log_mel, COUNTS, conditions, torch.Generator().manual_seed(seed))
        bound = likelihood(vae, log_mel, output, objective).elbo / math.log(2.0)
        loss = elbo_terms(vae, log_mel, output, objective).loss
        sums.append(bound + loss * torch.exp(0.5 * torch.tensor([4.0, 8.0])))
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=1e-2)


def test_padding_makes_no_unit_active() -> None:
    """What is behind a sound's end differs from what is before it, whatever the sound."""
    mask = torch.ones(4, 1, 10)
    mask[:, :, 5:] = 0
    latent = 3 * (1 - mask).expand(4, 3, 10)
    activity, drawn = UnitActivity(), torch.randn(4, 3, 10)
    activity.observe(0, latent, torch.zeros(4, 3, 10), drawn, mask)
    assert activity.active(0) == 0


def test_units_that_follow_the_sound_are_active() -> None:
    generator = torch.Generator().manual_seed(0)
    activity = UnitActivity()
    for _ in range(20):
        middle = torch.randn(4, 3, 10, generator=generator)
        drawn = middle + 2.0 * torch.randn(4, 3, 10, generator=generator)
        shift = torch.randn(4, 3, 10, generator=generator)
        shift *= torch.tensor([1.0, 0.1, 0.0])[:, None]  # of the prior's variance: 0.25, 0.0025, 0
        latent = middle + shift + torch.tensor([0.0, 0.0, 5.0])[:, None]
        activity.observe(0, latent, middle, drawn, torch.ones(4, 1, 10))
    assert activity.active(0) == 1
    assert np.isclose(UnitActivity.THRESHOLD, 0.01)
