"""What is put into normal sound, and the network that learns to tell it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.checkpoint import Provenance, load_checkpoint, load_model
from audiovae.models.normality import EDGE_FRAMES, NormalityClassifier, inner_mask
from audiovae.training.adapting import CROP_FRAMES, AdaptingTask, adapting_config
from audiovae.training.data import Corpus
from audiovae.training.disturbances import Disturber
from audiovae.training.loop import train
from tests.small_models import write_tiny_model

CPU = torch.device("cpu")
MELS, FLOOR = 128, -11.5
STEPS = 150


def noise(seed: int, frames: int = 300) -> Tensor:
    """`[frame, mel]`: a steady sound, its level falling from band to band."""
    generator = torch.Generator().manual_seed(seed)
    return -4 - 3 * torch.arange(MELS) / MELS + 0.5 * torch.randn(frames, MELS, generator=generator)


def corpus(clips: int = 8, **shape: int) -> Corpus:
    names = [f"{index}.wav" for index in range(clips)]
    return Corpus.of_clips([noise(index, **shape).half() for index in range(clips)], names)


def foreign(seed: int = 99) -> np.ndarray:
    return np.random.default_rng(seed).normal(-6, 2, (MELS, 2 * CROP_FRAMES)).astype(np.float32)


def task(place: Path, normal: Corpus, steps: int) -> AdaptingTask:
    vae, _ = write_tiny_model(place / "models")
    stored = load_checkpoint(vae)
    config = adapting_config(stored.config, minutes=10.0)
    training = config.training.model_copy(update={"steps": steps, "minutes": None})
    config = config.model_copy(update={"training": training})
    return AdaptingTask(config, normal, [foreign()], stored, place / "run", CPU, Provenance())


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was adapted to the steady sound."""
    place = tmp_path_factory.mktemp("adapted")
    train(task(place, corpus(), STEPS), place / "run", CPU)
    return place


def logits(network: NormalityClassifier, frames: Tensor) -> Tensor:
    """`[step]` of `[frame, mel]`."""
    log_mel = frames.T[None]
    _, steps = network(log_mel, inner_mask(torch.tensor([len(frames)]), len(frames)))
    found: Tensor = steps[0]
    return found


def test_a_change_is_where_it_says_and_of_all_sizes() -> None:
    disturber, random = Disturber([foreign()], FLOOR), np.random.default_rng(0)
    normal, another = (noise(seed, CROP_FRAMES).T.numpy() for seed in (1, 2))
    shares = []
    for _ in range(200):
        disturbed, change = disturber(normal, another, random)
        np.testing.assert_allclose(change, np.abs(disturbed - normal))
        assert disturbed.min() >= FLOOR
        shares.append((change > 0.2).mean())
    assert min(shares) < 0.001
    assert max(shares) > 0.9
    assert np.quantile(shares, 0.3) < 0.02 < 0.1 < np.quantile(shares, 0.8)


def test_the_same_seed_makes_the_same_disturbance() -> None:
    normal = noise(1, CROP_FRAMES).T.numpy()
    first, second = (
        Disturber([foreign()], FLOOR)(normal, normal, np.random.default_rng(5)) for _ in range(2)
    )
    np.testing.assert_array_equal(first[0], second[0])


@pytest.mark.parametrize("fault", ["click", "tone", "gap"])
def test_it_tells_faults_that_it_was_never_shown(adapted: Path, fault: str) -> None:
    network = load_model(adapted / "run" / "model.safetensors", vocoder=None).normality
    assert network is not None
    healthy = [logits(network, noise(100 + index)) for index in range(10)]
    broken = noise(200)
    if fault == "click":
        broken[150:153] += 2.5
    elif fault == "tone":
        broken[120:180, 60:62] += 3.0
    else:
        broken[140:170] -= 2.5
    found = logits(network, broken)
    assert 26 <= int(found.argmax()) <= 46  # frames 104 to 184
    assert float(found.max()) > max(float(one.max()) for one in healthy)


def test_sounds_that_it_has_seen_are_no_more_normal_to_it_than_new_ones(adapted: Path) -> None:
    network = load_model(adapted / "run" / "model.safetensors", vocoder=None).normality
    assert network is not None
    seen, new = (
        torch.stack([logits(network, noise(first + index)).max() for index in range(8)])
        for first in (0, 300)
    )
    assert abs(float(seen.mean() - new.mean())) < 2 * float(new.std())


def test_the_model_itself_stays_as_it_was(adapted: Path) -> None:
    before = load_model(adapted / "models" / "tiny.safetensors", vocoder=None)
    after = load_model(adapted / "run" / "model.safetensors", vocoder=None)
    assert before.normality is None
    assert after.normality is not None
    assert after.id == before.id
    assert after.quality_scale == before.quality_scale
    assert after.provenance.steps == STEPS


def test_the_edges_of_clips_teach_nothing(tmp_path: Path) -> None:
    """The frames there are unlike any other, however normal the sound is."""
    clips = [noise(index) for index in range(4)]
    for clip in clips:
        clip[:EDGE_FRAMES] = clip[-EDGE_FRAMES:] = 5.0
    normal = Corpus.of_clips([clip.half() for clip in clips], [str(i) for i in range(4)])
    made = task(tmp_path, normal, steps=1)
    network = made.networks["normality"]
    assert isinstance(network, NormalityClassifier)
    assert float(network.mel_mean.max()) < -3.5


def test_clips_of_a_frame_or_two_are_no_obstacle(tmp_path: Path) -> None:
    short = corpus(3, frames=2)
    mixed = replace(short, lengths=torch.tensor([1, 2, 2]))
    assert train(task(tmp_path, mixed, steps=2), tmp_path / "run", CPU).step == 2
