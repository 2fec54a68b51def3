"""Label and pitch: what they change, and that the model works without them."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from audiovae.config import LabelConfig, ModelConfig, PitchConfig, QualityConfig, load_config
from audiovae.errors import ConfigError, ShapeError
from audiovae.latents import Conditions
from audiovae.models.conditioning.label import NO_LABEL, label_index
from audiovae.models.conditioning.pitch import constant_pitch
from audiovae.models.hvae import HVAE
from tests.small_models import CONFIGS, stirred

FRAMES = 128
CLASSES = ("bell", "drum", "flute")


def config(with_quality: bool = False) -> ModelConfig:
    plain = load_config(CONFIGS / "tiny.toml", ["quality=false", "bottleneck.kind=gaussian"])
    return plain.model_copy(
        update={
            "label": LabelConfig(classes=CLASSES, embedding_channels=4),
            "pitch": PitchConfig(),
            "quality": QualityConfig(embedding_channels=8) if with_quality else None,
        }
    )


@lru_cache(maxsize=2)
def model(with_quality: bool = False) -> HVAE:
    return stirred(HVAE(config(with_quality)), seed=3)


def encoded(conditions: Conditions, with_quality: bool = False) -> Tensor:
    log_mel = -5 + 2 * torch.randn(2, 128, FRAMES, generator=torch.Generator().manual_seed(0))
    return model(with_quality).encode(log_mel, torch.tensor([FRAMES, 90]), conditions).log_mel


def test_a_label_changes_what_is_decoded_and_none_is_a_label_too() -> None:
    untold = encoded(Conditions())
    told_none = encoded(Conditions(label=torch.full((2,), NO_LABEL)))
    torch.testing.assert_close(untold, told_none)
    told = encoded(Conditions(label=torch.tensor([1, 2])))
    swapped = encoded(Conditions(label=torch.tensor([2, 1])))
    assert not torch.allclose(told, untold)
    assert not torch.allclose(told[0], swapped[0])


def test_a_pitch_changes_its_own_time_and_none_is_no_pitch() -> None:
    untold = encoded(Conditions())
    silent = encoded(Conditions(pitch=torch.zeros(2, 2, FRAMES)))
    assert torch.equal(untold, silent)
    track = torch.zeros(2, 2, FRAMES)
    track[:, :, 64:] = constant_pitch(880.0, 64)
    assert not torch.allclose(encoded(Conditions(pitch=track)), untold)


def test_a_track_is_fitted_to_the_signal() -> None:
    track = torch.zeros(2, 2, FRAMES)
    track[:, :, :50] = constant_pitch(220.0, 50)
    assert torch.equal(
        encoded(Conditions(pitch=track)), encoded(Conditions(pitch=track[:, :, :50]))
    )


def test_label_and_quality_go_together_and_apart() -> None:
    log_lambda = torch.tensor([5.0, 7.0])
    alone = encoded(Conditions(log_lambda), with_quality=True)
    none = encoded(Conditions(log_lambda, label=torch.tensor([0, 0])), with_quality=True)
    torch.testing.assert_close(alone, none)


def test_samples_and_decoding_are_told_too() -> None:
    vae = model()
    counts = torch.tensor([FRAMES])

    def sample(conditions: Conditions) -> Tensor:
        return vae.sample(counts, FRAMES, conditions, 1.0, torch.Generator().manual_seed(0))

    bell = sample(Conditions(label=torch.tensor([1])))
    assert not torch.allclose(bell, sample(Conditions(label=torch.tensor([2]))))
    high = Conditions(label=torch.tensor([1]), pitch=constant_pitch(1760.0, FRAMES)[None])
    assert not torch.allclose(bell, sample(high))
    log_mel = torch.full((1, 128, FRAMES), -5.0)
    output = vae.encode(log_mel, counts, high)
    torch.testing.assert_close(vae.decode(output.latents, FRAMES), output.log_mel)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"conditions\.label"):
        encoded(Conditions(label=torch.zeros(2, 1, dtype=torch.long)))
    with pytest.raises(ShapeError, match=r"conditions\.pitch"):
        encoded(Conditions(pitch=torch.zeros(2, FRAMES)))


def test_classes_are_found_by_name() -> None:
    label = config().label
    assert [label_index(label, name) for name in CLASSES] == [1, 2, 3]
    with pytest.raises(ConfigError, match=r"bell, drum, flute.*got 'horn'"):
        label_index(label, "horn")
    with pytest.raises(ConfigError, match="trained without labels"):
        label_index(None, "bell")


def test_a_constant_pitch_is_in_octaves_above_a() -> None:
    track = constant_pitch(880.0, 3)
    assert track.tolist() == [[1.0] * 3, [1.0] * 3]
    assert constant_pitch(261.63, 1)[0, 0] == pytest.approx(math.log2(261.63 / 440))
