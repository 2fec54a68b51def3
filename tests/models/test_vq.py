"""The vq bottleneck: codebooks that follow, rows that are learnt, and true bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.config import BottleneckConfig
from audiovae.models.bottlenecks.vq import Bottleneck, table_of
from audiovae.models.code_table import CodeTable

CHANNELS, STEPS = 4, 200


def bottleneck(**settings: object) -> Bottleneck:
    given = {"codebooks": 3, "codes": 16, "prior_rows": 4, "codebook_decay": 0.9, **settings}
    torch.manual_seed(0)
    return Bottleneck(BottleneckConfig(kind="vq", **given), CHANNELS)  # type: ignore[arg-type]


SIGNAL = torch.ones(2, 1, STEPS)


def clusters(count: int, seed: int) -> Tensor:
    """`[2, channel, step]` around `count` centres, which are the same for every seed."""
    centres = 3 * torch.randn(count, CHANNELS, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(count, (2, STEPS), generator=generator)
    noise = 0.05 * torch.randn(2, STEPS, CHANNELS, generator=generator)
    return (centres[chosen] + noise).transpose(1, 2)


def no_prior(module: Bottleneck) -> Tensor:
    return torch.zeros(2, module.prior_channels, STEPS)


def follow(module: Bottleneck, steps: int, count: int = 8) -> None:
    module.train()
    for seed in range(steps):
        module.draw(clusters(count, seed), no_prior(module), SIGNAL, None)
    module.eval()


def test_codebooks_find_the_clusters_of_the_data() -> None:
    module = bottleneck()
    follow(module, 40)
    target = clusters(8, seed=1000)
    settled = module.settle(target, no_prior(module)).latent
    assert float((settled - target).square().mean()) < 0.02 * float(target.square().mean())


def test_each_stage_brings_the_sum_nearer() -> None:
    module = bottleneck(codebooks=4)
    module.train()
    for seed in range(60):
        noise = torch.randn(2, CHANNELS, STEPS, generator=torch.Generator().manual_seed(seed))
        module.draw(noise, no_prior(module), SIGNAL, None)
    module.eval()
    target = torch.randn(2, CHANNELS, STEPS, generator=torch.Generator().manual_seed(7))
    indices = module.indices_of(target)
    errors = []
    for stages in range(1, 5):
        parts = [module.codes[s][indices[:, s]] for s in range(stages)]
        errors.append(float((torch.stack(parts).sum(0).transpose(1, 2) - target).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_entries_that_nothing_chooses_are_revived() -> None:
    module = bottleneck(codebooks=1)
    follow(module, 30)
    with torch.no_grad():
        module.codes[0, :8] = 1e3
        module.sums[0, :8] = 0.0
        module.usage[0, :8] = 0.0
    follow(module, 30)
    assert float(module.codes.abs().max()) < 100


def test_nothing_is_learnt_outside_training() -> None:
    module = bottleneck()
    follow(module, 3)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.draw(clusters(8, 5), no_prior(module), SIGNAL, None)
    module.settle(clusters(8, 5), no_prior(module))
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_padding_teaches_nothing() -> None:
    """Steps behind a signal's end are all alike: they would fill codebooks and rows."""
    module = bottleneck(codebooks=1)
    mask = SIGNAL.clone()
    mask[:, :, STEPS // 4 :] = 0
    module.train()
    for seed in range(40):
        target = clusters(8, seed).where(mask > 0, torch.tensor(50.0))
        module.draw(target, no_prior(module), mask, None)
    module.draw(torch.full((2, CHANNELS, STEPS), 50.0), no_prior(module), 0 * SIGNAL, None)
    assert float(module.codes.abs().max()) < 25
    assert float(module.usage.sum()) == pytest.approx(1, abs=0.15)
    assert float(module.row_counts.sum(dim=(1, 2)).max()) == pytest.approx(1, abs=0.15)


def test_distances_are_exact_under_autocast() -> None:
    """Far from zero, half precision would choose other entries."""
    module = bottleneck()
    follow(module, 20)
    module.codes[0] += 100
    target = clusters(8, 3) + 100
    with torch.autocast("cpu", torch.bfloat16):
        drawn = module.draw(target, no_prior(module), SIGNAL, None).latent
    torch.testing.assert_close(drawn, module.settle(target, no_prior(module)).latent)


def test_the_gradient_passes_straight_through() -> None:
    module = bottleneck(commitment_weight=0.0)
    follow(module, 5)
    target = clusters(8, 3).requires_grad_()
    (module.draw(target, no_prior(module), SIGNAL, None).latent * 3.0).sum().backward()  # type: ignore[no-untyped-call]
    assert target.grad is not None
    assert torch.equal(target.grad, torch.full_like(target, 3.0))


def test_commitment_pulls_towards_the_chosen_entries() -> None:
    module = bottleneck(commitment_weight=0.5)
    follow(module, 5)
    target = clusters(8, 3).requires_grad_()
    penalty = module.draw(target, no_prior(module), SIGNAL, None).penalty
    assert penalty is not None
    assert penalty.shape == (2, 1, STEPS)
    penalty.sum().backward()  # type: ignore[no-untyped-call]
    assert target.grad is not None
    with torch.no_grad():
        nearer = target - 0.1 * target.grad
        closer = module.draw(nearer, no_prior(module), SIGNAL, None).penalty
    assert closer is not None
    assert float(closer.sum()) < float(penalty.detach().sum())


def test_rows_learn_how_often_indices_come() -> None:
    """Eight equal clusters cost 3 bits in the first stage, not the 4 of 16 entries."""
    module = bottleneck(codebooks=1, prior_rows=1)
    follow(module, 80)
    sample = module.settle(clusters(8, 500), no_prior(module))
    used = len(torch.unique(module.indices_of(clusters(8, 500))))
    assert float(sample.bits.mean()) <= math.log2(used) + 0.1


def test_the_prior_learns_to_choose_rows() -> None:
    """Steps of two kinds, known from above: gradients teach which row is for which."""
    module = bottleneck(codebooks=1, prior_rows=4)
    kinds = (torch.arange(STEPS) % 2).float()
    weight = torch.zeros(module.prior_channels, 2, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=0.1)
    centres = torch.tensor([[4.0] * CHANNELS, [-4.0] * CHANNELS])
    module.train()
    for seed in range(150):
        noise = torch.randn(2, STEPS, CHANNELS, generator=torch.Generator().manual_seed(seed))
        target = (centres[kinds.long()] + noise).transpose(1, 2)
        told = torch.stack([kinds, 1 - kinds]).expand(2, 2, STEPS)
        prior = torch.einsum("pk,bks->bps", weight, told)
        optimiser.zero_grad()
        module.draw(target, prior, SIGNAL, None).bits.mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    module.eval()
    with torch.no_grad():
        told_bits = module.settle(target, prior).bits.mean()
        untold = bottleneck(codebooks=1, prior_rows=1)
        untold.load_state_dict(
            module.state_dict()
            | {
                "row_counts": module.row_counts.sum(dim=1, keepdim=True),
                "transitions": untold.transitions,
            }
        )
        plain_bits = untold.settle(target, torch.zeros(2, 1, STEPS)).bits.mean()
    assert float(told_bits) < float(plain_bits) - 0.7  # knowing the kind is worth one bit


def test_expected_bits_are_no_less_than_those_of_the_mixture() -> None:
    module = bottleneck()
    follow(module, 10)
    prior = torch.randn(2, module.prior_channels, STEPS, generator=torch.Generator().manual_seed(0))
    target = clusters(8, 4)
    expected = module.draw(target, prior, SIGNAL, None).bits
    indices = module.indices_of(target)
    chances = torch.softmax(module.row_logits(prior, indices), dim=2)
    likelihood = torch.stack(
        [table.T[indices[:, s]] for s, table in enumerate(module.probabilities())], dim=1
    ).transpose(2, 3)
    mixture = -(chances * likelihood).sum(dim=2).log2()
    assert bool((expected >= mixture - 1e-4).all())


def test_generation_follows_rows_seed_and_temperature() -> None:
    module = bottleneck(codebooks=1, prior_rows=2)
    follow(module, 10)
    with torch.no_grad():
        module.row_counts.fill_(1e-9)
        module.row_counts[0, 0, 3] = module.row_counts[0, 1, 5] = 0.5
    prior = no_prior(module)
    prior[0, 0], prior[1, 1] = 5.0, 5.0
    made = module.generate(prior, 1.0, torch.Generator().manual_seed(0))
    assert torch.allclose(made[0, :, 0], module.codes[0, 3])
    assert torch.allclose(made[1, :, 0], module.codes[0, 5])
    assert torch.equal(made, module.generate(prior, 0.0, None))
    follow(module, 10)
    first, again, other = (
        module.generate(prior, 1.0, torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_table_holds_the_probabilities_in_whole_numbers() -> None:
    module = bottleneck()
    follow(module, 10)
    table = table_of(module.config, [module, module])
    assert table.frequencies.shape == (2, 3, 4, 16)
    assert table.frequencies.dtype == np.int32
    assert (table.frequencies.sum(axis=3) == 1 << 24).all()
    assert (table.frequencies >= 1).all()
    chances = module.probabilities().double().numpy()
    np.testing.assert_allclose(table.frequencies[0] / 2**24, chances, atol=3e-6)
    assert np.array_equal(table.row(3 * 4 + 2 * 4 + 1), table.frequencies[1, 2, 1])


def test_a_certain_index_leaves_one_to_all_others() -> None:
    chances = np.zeros((1, 1, 1, 5))
    chances[0, 0, 0, 2] = 1.0
    table = CodeTable.of_probabilities(chances)
    assert table.row(0).tolist() == [1, 1, (1 << 24) - 4, 1, 1]


@pytest.mark.parametrize("codebooks", [1, 2])
def test_any_number_of_stages_works(codebooks: int) -> None:
    module = bottleneck(codebooks=codebooks)
    follow(module, 2)
    assert module.settle(clusters(4, 1), no_prior(module)).bits.shape == (2, codebooks, STEPS)
