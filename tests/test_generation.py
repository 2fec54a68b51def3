"""Drawn sounds: seeded, as long as asked, and true to what was to be kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.audio import Clip
from audiovae.checkpoint import Model
from audiovae.errors import ConfigError
from audiovae.generation import MAX_SECONDS, Sampler, SamplingSettings
from audiovae.latents import Conditions
from audiovae.models.latent_group import ChooseLatent
from audiovae.sampling import draw, encode_whole, keep_beginning, keep_levels, level_temperatures
from tests.small_models import load_tiny_model, load_tiny_timbre_model
from tests.tones import tones

FRAMES = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def sampler(model: Model) -> Sampler:
    return Sampler(model, SamplingSettings(level_temperatures(model, [0.7])))


def conditions(rows: int) -> Conditions:
    return Conditions(torch.full((rows,), 5.0))


def clip(seconds: float = 1.0, rate: int = 44_100, channels: int = 1) -> Clip:
    waves = [tones(int(seconds * rate), seed) for seed in range(channels)]
    return Clip(np.stack(waves), rate)


@contextmanager
def drawn_groups(model: Model) -> Iterator[list[Tensor]]:
    """The latent groups that `draw` gives the network, coarse to fine."""
    groups: list[Tensor] = []

    def top_down(lengths: Tensor, padded: int, told: Conditions, choose: ChooseLatent) -> Tensor:
        def seen(index: int, features: Tensor, prior: Tensor) -> Tensor:
            groups.append(choose(index, features, prior))
            return groups[-1]

        return run(lengths, padded, told, seen)

    run = model.vae.top_down
    with patch.object(model.vae, "top_down", top_down):
        yield groups


def test_a_seed_says_it_all(model: Model) -> None:
    hot = level_temperatures(model, [1.0])
    first, again, other = (draw(model, FRAMES, conditions(1), hot, s) for s in (1, 1, 2))
    assert first.shape == (1, 128, FRAMES)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_heat_the_seed_says_nothing(model: Model) -> None:
    cold = level_temperatures(model, [0.0])
    first, other = (draw(model, FRAMES, conditions(1), cold, seed) for seed in (1, 2))
    assert torch.equal(first, other)


def test_kept_levels_stay_and_the_others_do_not(model: Model) -> None:
    latents = encode_whole(model, torch.randn(2, 128, FRAMES), conditions(2))
    top = max(latents.levels)
    for kept in ({0}, {top}, set()):
        with drawn_groups(model) as groups:
            how = (latents.conditions, (1.0,) * (top + 1), 3, keep_levels(latents, kept))
            draw(model, FRAMES, *how)
        for old, new, level in zip(latents.groups, groups, latents.levels, strict=True):
            assert torch.equal(old, new) == (level in kept)


def test_everything_kept_is_the_reconstruction(model: Model) -> None:
    latents = encode_whole(model, torch.randn(1, 128, FRAMES), conditions(1))
    everything = keep_levels(latents, set(latents.levels))
    hot = level_temperatures(model, [1.0])
    made = draw(model, FRAMES, latents.conditions, hot, 0, everything)
    decoded = model.vae.decode(latents, 128)[:, :, :FRAMES]
    torch.testing.assert_close(made, decoded)


def test_a_continuation_keeps_whole_steps_of_the_beginning(model: Model) -> None:
    latents = encode_whole(model, torch.randn(1, 128, FRAMES), conditions(1))
    hot = level_temperatures(model, [1.0])
    with drawn_groups(model) as groups:
        kept = keep_beginning(latents, FRAMES)
        made = draw(model, 3 * FRAMES, latents.conditions, hot, 0, kept)
    for old, new, stride in zip(latents.groups, groups, latents.strides, strict=True):
        steps = FRAMES // stride
        assert torch.equal(old[:, :, :steps], new[:, :, :steps])
        assert not torch.equal(old[:, :, steps:], new[:, :, steps : old.shape[2]])
    assert made.shape[2] == 3 * FRAMES


def test_a_temperature_for_each_level_or_one(model: Model) -> None:
    names = model.vae.config.level_names
    assert level_temperatures(model, [0.5]) == (0.5,) * len(names)
    with pytest.raises(ConfigError, match="one for each level"):
        level_temperatures(model, [0.5] * (len(names) + 1))


def test_a_fresh_sound_is_as_long_and_loud_as_it_should_be(sampler: Sampler) -> None:
    sound = sampler.fresh(1.5, seed=0)
    assert sound.waveform.shape == (1, 66_150)
    assert 0.01 < np.abs(sound.waveform).max() <= 0.951


def test_sounds_too_short_for_a_meter_are_as_loud_as_others(sampler: Sampler) -> None:
    lengths = (0.15, 0.39, 0.41)
    waveforms = [sampler.fresh(seconds, seed=0).waveform[0] for seconds in lengths]
    levels = [20 * np.log10(np.sqrt(np.mean(wave**2))) for wave in waveforms]
    assert max(levels) - min(levels) < 6


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (16_000, 2)])
def test_variations_and_continuations_are_like_the_clip(
    sampler: Sampler, rate: int, channels: int
) -> None:
    source = clip(1.1, rate, channels)
    varied = sampler.varied(source, {0}, seed=1)
    assert varied.waveform.shape == source.waveform.shape
    assert varied.sample_rate == rate
    longer = sampler.continued(source, 0.7, seed=1)
    assert longer.waveform.shape == (channels, source.num_samples + round(0.7 * rate))


def test_the_way_between_clips_has_all_its_steps(sampler: Sampler) -> None:
    way = sampler.between(clip(0.5), clip(0.9, 22_050, 2), [0.0, 0.5, 1.0])
    assert [one.waveform.shape for one in way] == [(1, round(0.9 * 44_100))] * 3
    assert not np.array_equal(way[0].waveform, way[2].waveform)


def test_channels_are_drawn_alike(sampler: Sampler) -> None:
    """Two channels that were one stay one: no channel gets noise of its own."""
    mono = clip(0.6).waveform
    varied = sampler.varied(Clip(np.concatenate([mono, mono]), 44_100), {0}, seed=4).waveform
    # Rounding may differ from row to row, and polishing makes more of it; noise of its own is loud.
    assert np.abs(varied[0] - varied[1]).mean() < 0.3 * np.abs(varied[0]).mean()


def test_a_model_with_a_timbre_code_draws_one(tmp_path: Path) -> None:
    model = load_tiny_timbre_model(tmp_path)
    sampler = Sampler(model, SamplingSettings(level_temperatures(model, [1.0])))
    first, other = (sampler.fresh(0.5, seed).waveform for seed in (0, 1))
    assert not np.array_equal(first, other)
    assert sampler.varied(clip(0.5), {0}, 0).num_samples == clip(0.5).num_samples


@pytest.mark.parametrize(
    ("told", "reason"),
    [({"label": "dog"}, "class that the model knows"), ({"pitch_hz": 440.0}, "told a pitch")],
)  # fmt: skip
def test_what_a_model_cannot_be_told_is_refused(
    model: Model, told: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        Sampler(model, SamplingSettings((0.7, 0.7), **told))  # type: ignore[arg-type]


def test_too_long_a_sound_is_refused(sampler: Sampler) -> None:
    with pytest.raises(ConfigError, match="one piece"):
        sampler.fresh(MAX_SECONDS + 1, 0)
