"""`audiovae.models.hvae`: what is masked, what is independent, what agrees with what."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiovae.config import LevelConfig, ModelConfig
from audiovae.errors import ConfigError, ModelMismatchError, ShapeError
from audiovae.latents import Conditions, Latents
from audiovae.models.bottlenecks import LatentSample
from audiovae.models.bottlenecks.quantized import Bottleneck as Quantized
from audiovae.models.bottlenecks.quantized import residual_bits
from audiovae.models.hvae import HVAE
from tests.small_models import tiny_vae
from tests.tones import tiny_config

PADDING_TOLERANCE_NATS = 1e-5
"""A log-mel cell under another padding: convolutions of another length sum in another order."""


def log_mels(batch: int = 2, frames: int = 128, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return -5 + 2 * torch.randn(batch, 128, frames, generator=draw)


def at_lambda(log_lambda: float, batch: int = 2) -> Conditions:
    return Conditions(torch.full((batch,), log_lambda))


def gaussian_model() -> HVAE:
    torch.manual_seed(0)
    return HVAE(tiny_config(bottleneck={"kind": "gaussian"}, quality=False)).eval()


def lengths(*frames: int) -> Tensor:
    return torch.tensor(frames)


def unrounded(_group: int, posterior: Tensor, prior: Tensor, _mask: Tensor) -> LatentSample:
    """Take the posterior as it is: rounding would turn the last bit of a tie into a whole step."""
    split = Quantized(ModelConfig().bottleneck, 1).split_prior(prior)
    return LatentSample(posterior, residual_bits(posterior - split.mean, split.log_scale))


@pytest.mark.parametrize("num_frames", [64, 65, 100, 127, 128])
@torch.inference_mode()
def test_a_padded_signal_gives_what_the_unpadded_one_gives(num_frames: int) -> None:
    model, signal = tiny_vae(), log_mels(1, num_frames)
    outputs = []
    for shape, filling in ((128, 0.0), (256, 0.0), (256, 9.0)):
        padded = torch.nn.functional.pad(signal, (0, shape - num_frames), value=filling)
        outputs.append(model.reconstruct(padded, lengths(num_frames), at_lambda(6.0, 1), unrounded))
    assert torch.equal(outputs[1].log_mel[:, :, :num_frames], outputs[2].log_mel[:, :, :num_frames])
    torch.testing.assert_close(
        outputs[0].log_mel[:, :, :num_frames],
        outputs[1].log_mel[:, :, :num_frames],
        rtol=0,
        atol=PADDING_TOLERANCE_NATS,
    )
    bits = [output.level_bits() for output in outputs]
    torch.testing.assert_close(bits[0], bits[1], rtol=1e-4, atol=1e-2)
    for group in outputs[1].group_bits:
        used = math.ceil(num_frames / (256 // group.shape[2]))
        assert not group[:, :, used:].any()


@torch.inference_mode()
def test_a_row_has_the_same_bits_whatever_else_is_in_the_batch() -> None:
    model, batch = tiny_vae(), log_mels(4)
    counts = lengths(100, 128, 64, 3)
    first = model.encode(batch, counts, at_lambda(6.0, 4))
    others = torch.cat([batch[:1], log_mels(3, seed=9)])
    second = model.encode(others, lengths(100, 5, 128, 77), at_lambda(6.0, 4))
    assert torch.equal(first.log_mel[0], second.log_mel[0])
    for before, after in zip(first.latents.groups, second.latents.groups, strict=True):
        assert torch.equal(before[0], after[0])
    place = model.encode(batch.roll(1, 0), counts.roll(1), at_lambda(6.0, 4))
    assert torch.equal(first.log_mel[0], place.log_mel[1])


@pytest.mark.parametrize("make", [tiny_vae, gaussian_model])
@torch.inference_mode()
def test_decoding_the_encoded_latents_is_the_reconstruction(make: object) -> None:
    assert callable(make)
    model: HVAE = make()
    conditions = at_lambda(6.0) if model.config.quality else Conditions()
    output = model.encode(log_mels(), lengths(128, 70), conditions)
    assert torch.equal(model.decode(output.latents, 128), output.log_mel)


@torch.inference_mode()
def test_bits_of_levels_are_the_sum_of_their_groups() -> None:
    model = tiny_vae()
    output = model.encode(log_mels(), lengths(128, 70), at_lambda(6.0))
    levels = output.level_bits()
    assert levels.shape == (2, len(model.config.level_names))
    total = sum(float(bits.sum()) for bits in output.group_bits)
    assert float(levels.sum()) == pytest.approx(total, rel=1e-5)
    assert (levels > 0).all()
    own = [
        g for g, level in zip(output.group_bits, output.latents.levels, strict=True) if level == 3
    ]
    assert len(own) == 2
    torch.testing.assert_close(levels[:, 3], torch.stack([g.sum(dim=(1, 2)) for g in own]).sum(0))


@torch.inference_mode()
def test_quality_changes_the_result() -> None:
    model = tiny_vae()
    low, high = (model.encode(log_mels(), lengths(128, 128), at_lambda(x)) for x in (3.5, 10.0))
    assert not torch.equal(low.log_mel, high.log_mel)
    with pytest.raises(ShapeError, match="log_lambda"):
        model.encode(log_mels(), lengths(128, 128), Conditions())


def test_the_noise_of_training_follows_its_generator() -> None:
    model = tiny_vae()
    draws = [
        model(log_mels(), lengths(128, 128), at_lambda(6.0), torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0].log_mel, draws[1].log_mel)
    assert not torch.equal(draws[0].log_mel, draws[2].log_mel)


@pytest.mark.parametrize("make", [tiny_vae, gaussian_model])
@torch.inference_mode()
def test_samples_follow_their_seed_and_temperature(make: object) -> None:
    assert callable(make)
    model: HVAE = make()
    conditions = at_lambda(6.0) if model.config.quality else Conditions()

    def sample(seed: int, temperature: float = 1.0) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        return model.sample(lengths(100, 128), 128, conditions, temperature, draw)

    assert sample(1).shape == (2, 128, 128)
    assert torch.isfinite(sample(1)).all()
    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert torch.equal(sample(1, 0.0), sample(2, 0.0))


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = HVAE(tiny_config())
    output = model(log_mels(), lengths(128, 128), at_lambda(6.0))
    loss = output.log_mel.square().mean() + 1e-3 * output.level_bits().mean()
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []
    # Of these the first step moves only the zero-initialised ones; nothing is cut off by design.
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_levels_are_named_and_ordered_coarse_to_fine() -> None:
    model = tiny_vae()
    assert model.config.vae.level_strides == (64, 16, 4, 2)
    assert model.config.vae.group_levels == (0, 1, 2, 3, 3)
    assert model.config.level_names == ("1.3Hz", "5.4Hz", "21.5Hz", "43.1Hz")


def test_latents_know_their_size_and_their_model() -> None:
    groups = tuple(torch.full((2, 1, 1), float(i)) for i in range(3))
    latents = Latents(groups, (0, 1, 1), (4, 2, 2), lengths(3, 4), Conditions(), model_id="a")
    assert latents.batch_size == 2
    latents.require_model("a")
    with pytest.raises(ModelMismatchError, match="expected latents of model b, got latents of a"):
        latents.require_model("b")


@pytest.mark.parametrize("frames", [0, 63, 100])
def test_frames_must_be_whole_coarse_steps(frames: int) -> None:
    with pytest.raises(ShapeError, match="multiple of 64"):
        tiny_vae().encode(log_mels(frames=frames), lengths(1, 1), at_lambda(6.0))


def test_wrong_mels_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[batch, 128, frame\]"):
        tiny_vae().encode(torch.zeros(2, 80, 64), lengths(64, 64), at_lambda(6.0))


def test_unknown_bottleneck_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="gaussian, quantized"):
        HVAE(tiny_config(bottleneck={"kind": "none"}))


def test_one_level_is_a_plain_vae() -> None:
    level = LevelConfig(stride=4, groups=1, channels=2, encoder_blocks=0, decoder_blocks=0)
    config = ModelConfig()
    vae = config.vae.model_copy(update={"levels": (level,), "width": 8, "head_blocks": 0})
    model = HVAE(config.model_copy(update={"vae": vae}))
    output = model.encode(log_mels(frames=8), lengths(8, 5), at_lambda(6.0))
    assert output.log_mel.shape == (2, 128, 8)
    assert output.level_bits().shape == (2, 1)
