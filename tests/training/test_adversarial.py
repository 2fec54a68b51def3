"""Discriminators in training: they learn, they resume, and the encoder stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from audiovae.checkpoint import Provenance, QualityPoint, load_checkpoint, load_vae, load_vocoder
from audiovae.config import ModelConfig
from audiovae.errors import ConfigError
from audiovae.latents import Conditions
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training.adversarial import AdversarialTask
from audiovae.training.initial import initial_weights
from audiovae.training.loop import TrainingTask, Watcher, train
from audiovae.training.state import Progress
from audiovae.training.vocoder import VocoderTask
from tests.small_models import write_tiny_model
from tests.tones import chirp, noise, tiny_config, waveform_corpus
from tests.training.test_tasks import column, training

CPU = torch.device("cpu")
START = {"start_fraction": 0.25}


class StopAt(Watcher):
    def __init__(self, step: int) -> None:
        self._step, self._last = step, 0

    def stepped(self, progress: Progress) -> None:
        self._last = progress.step

    def wants_stop(self) -> bool:
        return self._last >= self._step


def vocoder_task(run_dir: Path, steps: int = 8, **adversarial: float) -> VocoderTask:
    config = tiny_config(
        kind="vocoder",
        adversarial={**START, **adversarial},
        training=training(steps, batch_size=2, crop_frames=16, skip_gradient_above=1e6),
    )
    return VocoderTask(config, *waveform_corpus().split(), run_dir, CPU, Provenance())


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder)
    (folder / "tiny.safetensors").rename(folder / "base.safetensors")
    return folder


def adversarial_task(run_dir: Path, tiny_files: Path, steps: int = 4) -> AdversarialTask:
    config = tiny_config(
        kind="adversarial",
        adversarial={"start_fraction": 0, "copy_share": 0.5},
        training=training(steps, batch_size=2, learning_rate=1e-2, skip_gradient_above=1e6),
    )
    initial = initial_weights([tiny_files])
    config = initial.adopted(config)
    task = AdversarialTask(config, *waveform_corpus().split(), run_dir, CPU, Provenance())
    initial.fill(task.parts)
    scale = initial.checkpoints["vae"].quality_scale
    task.quality_scale = tuple(point for point in scale if point.quality in (4, 5, 6))
    return task


def test_discriminators_join_at_their_fraction(tmp_path: Path) -> None:
    train(vocoder_task(tmp_path, steps=8), tmp_path, CPU)
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    for name in ("discriminators", "hinge", "features", "gradient_norm_discriminators"):
        values = [row.split(",")[header.split(",").index(name)] for row in rows]
        assert [value == "" for value in values] == [True] * 2 + [False] * 6
    assert column(tmp_path, "skipped")[-1] == 0


def test_discriminators_learn_to_tell_a_chirp_from_noise(tmp_path: Path) -> None:
    adversary = vocoder_task(tmp_path)._adversary
    assert adversary is not None
    real, made = chirp(8192).repeat(2, 1), noise(2 * 8192).reshape(2, -1)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(adversary.discriminators.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = adversary.try_sound(made, real, generator).loss
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2.0, abs=0.5)  # they know nothing yet
    assert losses[-1] < 0.75 * losses[0]


def test_what_the_discriminators_pull_at_improves(tmp_path: Path) -> None:
    """Steps on the adversarial losses alone bring the sound nearer to what they hold for real."""
    task = vocoder_task(tmp_path, hinge_weight=0, feature_weight=1)
    adversary = task._adversary
    assert adversary is not None
    generator = torch.Generator().manual_seed(0)
    target = chirp(8192).repeat(2, 1)
    log_mel = log_mel_spectrogram(target, task.config.spectrogram)
    optimiser = torch.optim.Adam(task.vocoder.parameters(), lr=1e-2)
    seen = []
    for _ in range(12):
        predicted = task.vocoder.predict(log_mel)
        waveform = task.vocoder.polish(predicted, 0)
        trial = adversary.try_sound(waveform, target, generator)
        reconstruction = 1e-3 * waveform.abs().mean()
        loss, figures = adversary.pull(predicted, waveform, reconstruction, trial)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seen.append(float(figures["features"]))
        assert all(p.requires_grad for p in adversary.discriminators.parameters())
    assert sum(seen[-3:]) < 0.9 * sum(seen[:3])


def test_none_are_built_where_none_take_part(tmp_path: Path) -> None:
    task = vocoder_task(tmp_path, start_fraction=1)
    assert list(task.networks) == ["vocoder"]
    train(task, tmp_path, CPU)
    assert not (tmp_path / "discriminators.safetensors").exists()


def states_equal(left: object, right: object) -> bool:
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(states_equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(states_equal, left, right))
    return left == right


@pytest.mark.parametrize(("kind", "stop"), [("vocoder", 1), ("vocoder", 3), ("adversarial", 2)])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    tmp_path: Path, tiny_files: Path, kind: str, stop: int
) -> None:
    makers: dict[str, Callable[[Path], TrainingTask]] = {
        "vocoder": lambda path: vocoder_task(path, steps=4),
        "adversarial": lambda path: adversarial_task(path, tiny_files, steps=3),
    }
    make = makers[kind]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(make(whole), whole, CPU)
    assert train(make(cut), cut, CPU, watcher=StopAt(stop)).step == stop
    torch.manual_seed(99)
    train(make(cut), cut, CPU, resume=True)
    states = [torch.load(run / "state.pt", weights_only=True) for run in (whole, cut)]
    for name in ("networks", "averages", "optimisers", "updates", "generator"):
        assert states_equal(states[0][name], states[1][name]), name
    assert "discriminators" in states[0]["networks"]
    assert "discriminators" not in states[0]["averages"]
    for name in ("discriminators", "model"):
        file = f"{name}.safetensors"
        tensors = [load_checkpoint(run / file).tensors for run in (whole, cut)]
        assert states_equal(tensors[0], tensors[1])


def test_discriminators_go_on_from_their_file(tmp_path: Path) -> None:
    """As on another machine: half-precision weights of all networks, and fresh moments."""
    first = vocoder_task(tmp_path / "first")
    train(first, tmp_path / "first", CPU)
    initial = initial_weights([tmp_path / "first"])
    assert set(initial.checkpoints) == {"vocoder", "discriminators"}
    second = vocoder_task(tmp_path / "second")
    initial.fill(second.networks)
    for name, before in first.networks["discriminators"].state_dict().items():
        after = second.networks["discriminators"].state_dict()[name]
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    train(second, tmp_path / "second", CPU)
    assert column(tmp_path / "second", "gradient_norm_vocoder")


def test_the_encoder_its_symbols_and_its_rate_stay_what_they_were(
    tmp_path: Path, tiny_files: Path
) -> None:
    task = adversarial_task(tmp_path, tiny_files)
    before = {name: value.clone() for name, value in task.generator.vae.state_dict().items()}
    train(task, tmp_path, CPU)
    tuned = load_vae(load_checkpoint(tmp_path / "model.safetensors"), "tuned")
    moved = {name for name, value in tuned.state_dict().items() if not same(value, before[name])}
    last = f"groups.{len(tuned.groups) - 1}.inject"
    assert moved
    assert all(name.startswith(("head", "output", last)) for name in moved)
    old = load_vae(load_checkpoint(tiny_files / "base.safetensors"), "old")
    log_mel = -5 + 2 * torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(0))
    outputs = [
        model.encode(log_mel, torch.tensor([128, 100]), Conditions(torch.tensor([4.0, 9.0])))
        for model in (old, tuned)
    ]
    for ours, theirs in zip(outputs[0].latents.groups, outputs[1].latents.groups, strict=True):
        assert torch.equal(ours, theirs)
    for bits, others in zip(outputs[0].group_bits, outputs[1].group_bits, strict=True):
        assert torch.equal(bits, others)
    assert not torch.equal(outputs[0].log_mel, outputs[1].log_mel)


def same(value: torch.Tensor, before: torch.Tensor) -> bool:
    return torch.equal(value, before)


def test_both_models_are_written_with_what_was_measured(tmp_path: Path, tiny_files: Path) -> None:
    task = adversarial_task(tmp_path, tiny_files)
    old = task.quality_scale
    progress = train(task, tmp_path, CPU)
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.kind == checkpoint.config.kind == "vae"
    assert [p.kbps for p in checkpoint.quality_scale] == [p.kbps for p in old]
    measured = [p.log_mel_l1_db for p in checkpoint.quality_scale]
    assert measured[2] == pytest.approx(progress.metrics["log_mel_l1_db_6"])
    assert {"mel_distance_copied", "mel_distance_quality_4", "short_quality_6"} <= set(
        progress.metrics
    )
    vocoder = load_vocoder(tmp_path / "vocoder.safetensors")
    sound = vocoder(torch.randn(1, 128, 8) - 5)
    assert bool(torch.isfinite(sound).all())
    again = initial_weights([tmp_path])
    assert set(again.checkpoints) == {"vae", "vocoder", "discriminators"}


def test_the_sizes_of_given_weights_win(tiny_files: Path) -> None:
    initial = initial_weights([tiny_files / "base.safetensors"])
    config = initial.adopted(ModelConfig(kind="adversarial"))
    assert config.vae == initial.checkpoints["vae"].config.vae
    assert config.vocoder.width == 32
    assert config.training == ModelConfig().training


def test_missing_weights_are_named(tiny_files: Path, tmp_path: Path) -> None:
    only = tmp_path / "model.safetensors"
    only.write_bytes((tiny_files / "base.safetensors").read_bytes())
    initial = initial_weights([only])
    with pytest.raises(ConfigError, match="found no vocoder"):
        initial.adopted(ModelConfig(kind="adversarial"))
    both = initial_weights([only, tiny_files / "vocoder.safetensors"])
    assert both.adopted(ModelConfig(kind="adversarial")).vocoder.width == 32


def test_a_quiet_item_is_judged_like_a_loud_one(tmp_path: Path) -> None:
    adversary = vocoder_task(tmp_path)._adversary
    assert adversary is not None
    clip = chirp(8192)[None]
    batch = torch.cat([clip, 0.01 * clip, torch.zeros_like(clip)])
    trial = adversary.try_sound(batch, batch, torch.Generator().manual_seed(0))
    for score in trial.real.scores:
        torch.testing.assert_close(score[0], score[1], rtol=1e-3, atol=1e-4)
    assert bool(torch.isfinite(trial.loss))
    assert float(trial.gain.max()) <= 300


def test_old_points_without_quality_are_measured_once(tmp_path: Path, tiny_files: Path) -> None:
    task = adversarial_task(tmp_path, tiny_files)
    task.quality_scale = (QualityPoint(6, 5.0, 2.8, 9.9),)
    metrics = task.validate({"generator": task.generator}, 0).metrics
    assert [name for name in metrics if name.startswith("log_mel")] == ["log_mel_l1_db_6"]
