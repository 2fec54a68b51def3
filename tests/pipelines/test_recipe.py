from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from audiovae import cli, pretrained
from audiovae.commands import UsageProblem
from audiovae.synthesis import DEFAULT_POLISH_STEPS
from pipelines.batch_transform import batch_transform
from pipelines.evaluate import evaluate
from pipelines.runner.recipe import Recipe, parse_products, weights_identity

RECIPE = Recipe(("resynthesize",), "base", "w" * 16, 6, "wav")


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pretrained"
    folder.mkdir()
    (folder / "base.safetensors").write_bytes(b"base")
    (folder / "vocoder.safetensors").write_bytes(b"vocoder")
    monkeypatch.setattr(pretrained, "PRETRAINED_DIR", folder)
    return folder


@pytest.mark.parametrize(
    "other",
    [
        replace(RECIPE, weights="v" * 16),
        replace(RECIPE, quality=5),
        replace(RECIPE, file_format="flac"),
        replace(RECIPE, products=()),
        replace(RECIPE, polish=0),
    ],
)
def test_key_changes_with_whatever_changes_bytes(other: Recipe) -> None:
    assert other.key != RECIPE.key


def test_polish_counts_only_where_there_is_sound() -> None:
    silent = replace(RECIPE, products=("compress",))
    assert replace(silent, polish=0).key == silent.key


def test_every_command_polishes_as_the_library_does() -> None:
    commands = (cli.decode, cli.resynth, batch_transform, evaluate)
    defaults = [inspect.signature(command).parameters["polish"].default for command in commands]
    assert {*defaults, RECIPE.polish} == {DEFAULT_POLISH_STEPS}


def test_key_does_not_depend_on_how_the_model_was_named() -> None:
    assert replace(RECIPE, checkpoint="/elsewhere/base.safetensors").key == RECIPE.key


def test_outputs_keep_the_whole_source_name() -> None:
    flac = replace(RECIPE, file_format="flac")
    assert flac.outputs_for("x/a.wav") == (("resynthesize", "x/a.wav.resynth.flac"),)
    assert flac.outputs_for("x/a.mp3") != flac.outputs_for("x/a.wav")


def test_products() -> None:
    assert parse_products(" resynthesize,resynthesize ") == ("resynthesize",)
    assert parse_products("resynthesize,compress") == ("compress", "resynthesize")


@pytest.mark.parametrize("text", ["", ",", "nonsense", "resynthesize,nonsense"])
def test_unknown_products_are_named_with_what_exists(text: str) -> None:
    with pytest.raises(UsageProblem, match="expected compress, resynthesize, got"):
        parse_products(text)


def test_identity_is_that_of_the_bytes(shipped: Path, tmp_path: Path) -> None:
    by_name = weights_identity("base")
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(b"base")
    assert weights_identity(str(copy)) == by_name
    copy.write_bytes(b"other")
    assert weights_identity(str(copy)) != by_name
    (shipped / "vocoder.safetensors").write_bytes(b"better")
    assert weights_identity("base") != by_name


@pytest.mark.parametrize("name", ["nonsense", "no/such/file.safetensors", "."])
def test_unknown_checkpoint_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageProblem, match=r"one of the shipped models \(base, vocoder\)"):
        weights_identity(name)


def test_no_shipped_model_is_said(shipped: Path) -> None:
    (shipped / "base.safetensors").unlink()
    with pytest.raises(UsageProblem, match=r"shipped models \(vocoder\), found none"):
        weights_identity("base")
