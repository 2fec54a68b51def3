"""`audiovae.objectives.adversarial`: signs, zeros, and what a weight means."""

from __future__ import annotations

import pytest
import torch

from audiovae.objectives.adversarial import (
    balanced,
    discriminator_hinge_loss,
    feature_matching_loss,
    generator_hinge_loss,
)


def constant(value: float) -> list[torch.Tensor]:
    return [torch.full((2, 3), value), torch.full((2, 5), value)]


def test_discriminators_that_are_sure_and_right_have_no_loss() -> None:
    assert float(discriminator_hinge_loss(constant(1.5), constant(-1.5))) == 0.0
    assert float(discriminator_hinge_loss(constant(0.0), constant(0.0))) == 2.0
    assert float(discriminator_hinge_loss(constant(-1.0), constant(1.0))) == 4.0


def test_the_generator_wants_high_scores() -> None:
    assert float(generator_hinge_loss(constant(2.0))) == -2.0
    assert float(generator_hinge_loss(constant(-2.0))) == 2.0


def test_features_match_themselves_at_any_level() -> None:
    random = torch.Generator().manual_seed(0)
    real = [torch.randn(2, 4, 8, generator=random), torch.randn(2, 8, generator=random)]
    assert float(feature_matching_loss(real, real)) == 0.0
    made = [feature * 1.1 for feature in real]
    assert float(feature_matching_loss(real, made)) == pytest.approx(0.1, rel=1e-4)
    louder = feature_matching_loss([9 * f for f in real], [9 * f for f in made])
    assert float(louder) == pytest.approx(0.1, rel=1e-4)


def test_no_gradient_goes_into_the_real_features() -> None:
    real, made = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    feature_matching_loss([real], [made]).backward()
    assert real.grad is None
    assert made.grad is not None


def test_a_weight_is_a_share_of_the_references_gradient() -> None:
    source = torch.randn(6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    outputs = (source[:3] * 2.0, source[3:] * 2.0)
    joined = torch.cat(outputs)
    reference = 5.0 * joined[0]  # gradient (5, 0, 0, 0, 0, 0)
    tiny, huge = 1e-6 * joined[1], 1e6 * joined[4]
    total = balanced(outputs, reference, {"tiny": (tiny, 0.5), "huge": (huge, 2.0)})
    total.backward()
    assert source.grad is not None
    expected = torch.tensor([5.0, 2.5, 0.0, 0.0, 10.0, 0.0]) * 2.0
    torch.testing.assert_close(source.grad, expected)
