"""`python -m pipelines.train --recipe` and `--init`: all stages in one command, on from weights."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiovae.checkpoint import Provenance, load_checkpoint, load_model, save_vae, save_vocoder
from audiovae.latents import Conditions
from audiovae.training import loop
from audiovae.training.initial import InitialWeights, initial_weights
from pipelines import train
from pipelines.training.recipe import Recipe, find_recipe, fine_tuning
from tests.pipelines.conftest import Ended
from tests.small_models import CONFIGS, tiny_vae, tiny_vocoder, tiny_vocoder_config
from tests.tones import write_tones

STAGES = ["vae", "vocoder", "adversarial"]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("audio"), count=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as a recipe leaves it, of the tiny models."""
    folder = tmp_path_factory.mktemp("weights")
    config = tiny_vocoder_config()
    training = {"batch_size": 1, "crop_frames": 16}
    small = {"training": config.training.model_copy(update=training)}
    save_vae(folder / "base.safetensors", tiny_vae(), Provenance(licence="none"), ())
    file = folder / "vocoder.safetensors"
    save_vocoder(file, tiny_vocoder(), config.model_copy(update=small), Provenance(licence="none"))
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The tiny recipe with small batches."""
    config = tmp_path / "small.toml"
    config.write_text(f'extends = "{CONFIGS / "tiny.toml"}"\n[training]\nbatch_size = 1\n')
    stages = [
        f'[[stages]]\nname = "{kind}"\nkind = "{kind}"\nconfig = "small.toml"\nshare = 1\n'
        for kind in STAGES
    ]
    path = tmp_path / "recipe.toml"
    path.write_text("".join(stages))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Ended:
    capsys.readouterr()
    status = train.main([str(argument) for argument in (*arguments, "--device", "cpu")])
    written = capsys.readouterr()
    return Ended(status, written.out, written.err)


def problem_of(ended: Ended, status: int) -> str:
    assert ended.status == status
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    return ended.err


def symbols(path: Path) -> list[torch.Tensor]:
    vae = load_model(path, vocoder=None).vae
    log_mel = -5 + 2 * torch.randn(1, 128, 64, generator=torch.Generator().manual_seed(0))
    output = vae.encode(log_mel, torch.tensor([64]), Conditions(torch.tensor([6.0])))
    return [*output.latents.groups, *output.group_bits]


@pytest.mark.slow
def test_one_command_from_audio_to_models_that_ship(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "run"
    given = ["--recipe", "tiny", "--data", audio, "--output-dir", target, "--minutes", "0.08"]
    ended = run(capsys, *given, "--licence", "CC0")
    assert (ended.status, ended.err) == (0, "")
    begun = [line.split()[0] for line in ended.out.splitlines() if line.startswith("stage=")]
    assert begun == [f"stage={name}" for name in STAGES]
    assert list(json.loads((target / "recipe.json").read_text())["finished"]) == STAGES
    model = load_model(target / "base.safetensors", vocoder=target / "vocoder.safetensors")
    assert model.provenance.licence == "CC0"
    assert len(model.quality_scale) == 8
    for name in ("base", "vocoder"):
        card = (target / f"{name}.md").read_text()
        assert all((target / f"{stage}_curves.png").is_file() for stage in STAGES)
        assert all(f"({stage}_sample.png)" in card for stage in STAGES)
    before = symbols(target / "vae" / "model.safetensors")
    after = symbols(target / "base.safetensors")
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert set(initial_weights([target]).checkpoints) == {"vae", "vocoder", "discriminators"}

    logs = {path: path.read_bytes() for path in target.rglob("*.csv")}
    assert "add --resume" in problem_of(run(capsys, *given), 2)
    again = run(capsys, *given, "--resume")
    assert [line for line in again.out.splitlines() if line.startswith("stage=")] == [
        f"stage={name} is done" for name in STAGES
    ]
    assert {path: path.read_bytes() for path in target.rglob("*.csv")} == logs


def test_a_signal_in_a_stages_last_step_stops_the_recipe(
    audio: Path,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ["--recipe", recipe, "--data", audio, "--output-dir", tmp_path, "--minutes", "0.06"]
    finish = loop._Run.finish

    def interrupt(self: loop._Run) -> None:
        signal.raise_signal(signal.SIGINT)
        finish(self)

    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "finish", interrupt)
        assert "with --resume to continue" in problem_of(run(capsys, *given), 130)
    assert (tmp_path / "vae" / "model.safetensors").exists()
    assert not (tmp_path / "vocoder").exists()


@pytest.mark.slow
def test_a_stopped_recipe_goes_on_where_it_was(
    audio: Path,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "run"
    given = ["--recipe", recipe, "--data", audio, "--output-dir", target, "--minutes", "0.06"]
    advance = loop._Run.advance

    def interrupt(self: loop._Run) -> None:
        advance(self)
        if "vocoder" in self.task.networks:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "advance", interrupt)
        assert "with --resume to continue" in problem_of(run(capsys, *given), 130)
    assert list(json.loads((target / "recipe.json").read_text())["finished"]) == ["vae"]
    first = (target / "vae" / "model.safetensors").read_bytes()
    ended = run(capsys, *given, "--resume")
    assert (ended.status, ended.err) == (0, "")
    assert "stage=vae is done" in ended.out
    assert (target / "vae" / "model.safetensors").read_bytes() == first
    assert load_checkpoint(target / "vocoder.safetensors").kind == "vocoder"
    other = tmp_path / "other.toml"
    other.write_text(f'[[stages]]\nname = "one"\nconfig = "{train.__file__}"\nshare = 1.0\n')
    assert "TOML" in problem_of(run(capsys, *given[2:], "--recipe", other, "--resume"), 1)
    other.write_text('[[stages]]\nname = "one"\nconfig = "small.toml"\nshare = 1.0\n')
    problem = problem_of(run(capsys, *given[2:], "--recipe", other, "--resume"), 1)
    assert "expected a recipe of the stages vae, vocoder, adversarial, got one" in problem


@pytest.mark.slow
def test_weights_go_on_on_sound_of_ones_own(
    audio: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mine"
    given = ["--init", weights, "--data", audio, "--output-dir", target, "--minutes", "0.05"]
    ended = run(capsys, *given, "--licence", "mine")
    assert (ended.status, ended.err) == (0, "")
    old, new = (load_checkpoint(d / "base.safetensors") for d in (weights, target))
    assert new.config.name == "custom"
    assert new.config.vae == old.config.vae
    assert new.provenance.licence == "mine; none"
    assert "started from vae of 0 steps" in new.provenance.data
    assert "/" not in new.provenance.data  # a model file holds no paths
    assert torch.equal(new.tensors["mel_mean"], old.tensors["mel_mean"])
    moved = [not torch.equal(new.tensors[name], old.tensors[name]) for name in old.tensors]
    assert any(moved)
    assert new.quality_scale != old.quality_scale
    assert load_checkpoint(target / "vocoder.safetensors").config.name == "custom"


def test_fine_tuning_is_gentle(weights: Path) -> None:
    initial = initial_weights([weights])
    recipe = fine_tuning(initial)
    assert [stage.config.kind for stage in recipe.stages] == ["vae", "vocoder"]
    for stage in recipe.stages:
        before = initial.checkpoints[stage.name].config.training.learning_rate
        assert stage.config.training.learning_rate < 0.5 * before
        assert stage.config.adversarial.start_fraction == 1.0
    again = fine_tuning(_as_fine_tuned(initial, recipe))
    rates = [[stage.config.training.learning_rate for stage in r.stages] for r in (recipe, again)]
    assert rates[0] == rates[1]  # however often one goes on
    only = initial_weights([weights / "vocoder.safetensors"])
    assert [stage.name for stage in fine_tuning(only).stages] == ["vocoder"]


def _as_fine_tuned(initial: InitialWeights, recipe: Recipe) -> InitialWeights:
    """The weights that a fine-tuning leaves: those it began with, under its configs."""
    configs = {stage.name: stage.config for stage in recipe.stages}
    checkpoints = {
        kind: replace(checkpoint, config=configs.get(kind, checkpoint.config))
        for kind, checkpoint in initial.checkpoints.items()
    }
    return replace(initial, checkpoints=checkpoints)


@pytest.mark.parametrize("name", ["full", "small", "tiny"])
def test_a_recipe_that_ships_has_all_stages(name: str) -> None:
    recipe = find_recipe(name)
    assert [stage.config.kind for stage in recipe.stages] == STAGES
    assert sum(stage.share for stage in recipe.stages) == pytest.approx(1.0)


def test_wrong_usage_is_one_line_each(
    audio: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", audio, "--output-dir", tmp_path / "run"]
    assert "got none of them" in problem_of(run(capsys, *given), 2)
    both = ["--recipe", "tiny", "--config", "configs/tiny.toml"]
    assert "got the first two" in problem_of(run(capsys, *given, *both), 2)
    assert "--minutes" in problem_of(run(capsys, *given, "--recipe", "tiny"), 2)
    assert "--minutes" in problem_of(run(capsys, *given, "--init", weights, "--steps", "3"), 2)
    in_time = [*given, "--minutes", "1"]
    assert "full, small, tiny" in problem_of(run(capsys, *in_time, "--recipe", "huge"), 1)
    assert "found no" in problem_of(run(capsys, *in_time, "--recipe", "tiny", "--resume"), 2)
    assert "found none" in problem_of(run(capsys, *in_time, "--init", "nothing"), 1)
    assert "configs/timbre_small.toml" in problem_of(run(capsys, *in_time, "--init", "timbre"), 1)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "found none" in problem_of(run(capsys, *in_time, "--init", empty), 1)
    alone = tmp_path / "alone.toml"
    alone.write_text('kind = "adversarial"\n')
    single = [*given, "--config", alone, "--steps", "1"]
    assert "expected --init" in problem_of(run(capsys, *single), 2)
    misspelt = tmp_path / "misspelt.toml"
    misspelt.write_text('[[stages]]\nname = "a"\nconfig = "x.toml"\nshar = 1\n')
    problem = problem_of(run(capsys, *in_time, "--recipe", misspelt), 1)
    assert "did you mean 'share'" in problem
