"""`audiovae.models.discriminators`: what they see, and that gradients go through all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.config import DiscriminatorsConfig
from audiovae.models.discriminators import Discriminators, PeriodDiscriminator, STFTDiscriminator

CONFIG = DiscriminatorsConfig(
    periods=(2, 3), period_channels=(4, 8), stft_windows=(512, 256), stft_channels=4
)


def sound(batch: int = 4, samples: int = 2048) -> Tensor:
    return 0.3 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def judges() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(CONFIG)


def test_every_member_judges_every_item() -> None:
    judgement = judges()(sound())
    assert len(judgement.scores) == 4
    assert len(judgement.features) == 2 * 2 + 2 * 5 * 4
    assert all(tensor.shape[0] == 4 for tensor in judgement.scores + judgement.features)
    alone = judges()(sound()[1:2])
    for joint, own in zip(judgement.scores, alone.scores, strict=True):
        torch.testing.assert_close(joint[1:2], own, rtol=1e-4, atol=1e-5)


def test_a_judgement_splits_into_its_halves() -> None:
    whole = judges()(sound())
    first, second = whole.split()
    for parts in zip(whole.features, first.features, second.features, strict=True):
        assert torch.equal(parts[0], torch.cat(parts[1:]))
    assert not any(t.requires_grad for t in first.detach().scores + second.detach().features)


def test_all_of_them_and_the_sound_see_gradients() -> None:
    network, waveform = judges(), sound().requires_grad_()
    judgement = network(waveform)
    torch.stack([score.mean() for score in judgement.scores]).sum().backward()
    assert waveform.grad is not None
    assert bool((waveform.grad != 0).any(dim=1).all())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


def test_a_period_sees_its_own_columns_only() -> None:
    """Samples of one column never mix with those of another."""
    torch.manual_seed(0)
    network = PeriodDiscriminator(3, (4, 8))
    waveform = sound(1, 300)
    changed = waveform.clone()
    changed[:, 1::3] += 1.0
    score, other = network(waveform)[0], network(changed)[0]
    same = (score == other).all(dim=2)[0, 0]
    assert same.tolist() == [True, False, True]


def test_bands_cover_the_spectrum_once() -> None:
    network = STFTDiscriminator(512, 4, (0.1, 0.25, 0.5, 0.75))
    assert sum(network.band_sizes) == 257
    spectrum = network._spectrum(sound(2, 2048))
    assert spectrum.shape == (2, 2, 1 + (2048 - 512) // 128, 257)
    power = float(spectrum.square().mean())
    assert power == pytest.approx(0.3**2 * 0.375, rel=0.1)  # mean square of a Hann window: 3/8


def test_it_compiles_to_one_graph() -> None:
    network = judges()
    compiled = torch.compile(network.forward, backend="eager", fullgraph=True, dynamic=False)
    for ours, theirs in zip(network(sound()).scores, compiled(sound()).scores, strict=True):
        torch.testing.assert_close(ours, theirs)
