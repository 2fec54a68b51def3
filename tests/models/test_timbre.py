"""`audiovae.models.timbre`: what the clip-wide code sees, and what sees it."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor

from audiovae.config import ModelConfig
from audiovae.errors import ConfigError, ModelMismatchError, ShapeError
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE
from audiovae.models.timbre import TimbrePosterior
from tests.small_models import stirred, tiny_vae
from tests.tones import tiny_config

CODE_TOLERANCE = 1e-5
"""A code under another padding or level: sums of another length are taken in another order."""
CHANNELS = 8


@lru_cache(maxsize=1)
def timbre_model() -> HVAE:
    torch.manual_seed(0)
    return stirred(HVAE(timbre_config()), seed=0)


def timbre_config(**timbre: int) -> ModelConfig:
    table = {"channels": CHANNELS, "width": 16, "blocks": 1, "context_channels": 8, **timbre}
    config = tiny_config()
    vae = config.vae.model_copy(update={"head_blocks": 1}).model_dump()
    gaussian = {"kind": "gaussian"}
    return tiny_config(kind="timbre", timbre=table, vae=vae, bottleneck=gaussian, quality=False)


def log_mels(batch: int = 2, frames: int = 128, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return -5 + 2 * torch.randn(batch, 128, frames, generator=draw)


def lengths(*frames: int) -> Tensor:
    return torch.tensor(frames)


@pytest.mark.parametrize("num_frames", [1, 64, 65, 128])
@torch.inference_mode()
def test_padding_does_not_change_the_code(num_frames: int) -> None:
    signal = log_mels(1, num_frames)
    codes = []
    for shape, filling in ((128, 0.0), (256, 0.0), (256, 9.0)):
        padded = torch.nn.functional.pad(signal, (0, shape - num_frames), value=filling)
        codes.append(timbre_model().timbre_of(padded, lengths(num_frames)).mean)
    assert codes[0].shape == (1, CHANNELS)
    assert torch.equal(codes[1], codes[2])
    torch.testing.assert_close(codes[0], codes[1], rtol=0, atol=CODE_TOLERANCE)


@torch.inference_mode()
def test_a_code_does_not_depend_on_its_batch() -> None:
    batch = log_mels(4)
    others = torch.cat([batch[:1], log_mels(3, seed=9)])
    first = timbre_model().timbre_of(batch, lengths(100, 128, 64, 3)).mean
    second = timbre_model().timbre_of(others, lengths(100, 5, 128, 77)).mean
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@torch.inference_mode()
def test_the_code_does_not_know_the_level() -> None:
    signal = log_mels()
    quiet = timbre_model().timbre_of(signal - 2.5, lengths(128, 90)).mean
    loud = timbre_model().timbre_of(signal, lengths(128, 90)).mean
    torch.testing.assert_close(quiet, loud, rtol=0, atol=CODE_TOLERANCE)


@torch.inference_mode()
def test_silence_has_a_code_too() -> None:
    silence = torch.full((1, 128, 64), ModelConfig().spectrogram.log_floor)
    assert torch.isfinite(timbre_model().timbre_of(silence, lengths(64)).mean).all()


@torch.inference_mode()
def test_a_clip_is_decoded_with_its_own_code_unless_another_is_given() -> None:
    model, signal, counts = timbre_model(), log_mels(), lengths(128, 70)
    output = model.encode(signal, counts, Conditions())
    own = model.timbre_of(signal, counts).mean
    assert output.latents.timbre is not None
    assert torch.equal(output.latents.timbre, own)
    assert torch.equal(model.decode(output.latents, 128), output.log_mel)
    assert torch.equal(model.encode(signal, counts, Conditions(timbre=own)).log_mel, output.log_mel)
    swapped = model.encode(signal, counts, Conditions(timbre=own.flip(0)))
    assert not torch.equal(swapped.log_mel, output.log_mel)


@torch.inference_mode()
def test_the_latents_do_not_depend_on_the_code() -> None:
    model, signal, counts = timbre_model(), log_mels(), lengths(128, 70)
    first = model.encode(signal, counts, Conditions())
    second = model.encode(signal, counts, Conditions(timbre=torch.ones(2, CHANNELS)))
    for one, other in zip(first.latents.groups, second.latents.groups, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(first.level_bits(), second.level_bits())


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = HVAE(timbre_config())
    output = model(log_mels(), lengths(128, 128), Conditions())
    (output.log_mel.square().mean() + 1e-3 * output.level_bits().mean()).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


def test_the_divergence_is_that_of_the_draws() -> None:
    torch.manual_seed(0)
    posterior = TimbrePosterior(torch.tensor([[0.5, -1.0]]), torch.tensor([[-1.0, 0.2]]))
    deviation = posterior.log_deviation.exp()
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(posterior.mean, deviation), normal(torch.zeros(2), torch.ones(2))
    )
    torch.testing.assert_close(posterior.nats(), expected.sum(dim=1))
    draws = [posterior.draw(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_codes_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"conditions.timbre \[batch, 8\]"):
        timbre_model().encode(log_mels(), lengths(9, 9), Conditions(timbre=torch.zeros(2, 3)))
    with pytest.raises(ModelMismatchError, match="expected a model with a timbre code"):
        tiny_vae().timbre_of(log_mels(), lengths(9, 9))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"kind": "timbre"}, "need each other"),
        ({"timbre": {}}, "need each other"),
        ({"kind": "timbre", "timbre": {}}, "needs vae.head_blocks"),
        ({"kind": "timbre", "timbre": {}, "vae": {}}, "no place for the code"),
        ({"kind": "timbre", "timbre": {"channel": 3}}, "did you mean 'channels'"),
    ],
)
def test_configs_that_cannot_be_are_refused(tables: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**tables)
