"""Model files: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audiovae.checkpoint import (
    Provenance,
    load_checkpoint,
    load_model,
    load_vocoder,
    save_vae,
)
from audiovae.config import load_config
from audiovae.errors import CheckpointError, ModelMismatchError
from audiovae.models.hvae import HVAE
from audiovae.pretrained import find_checkpoint, is_run
from audiovae.transform import Transformer, TransformSettings
from tests.small_models import CONFIGS, load_tiny_model, tiny_vae, write_tiny_model


def test_weights_config_and_provenance_come_back(tmp_path: Path) -> None:
    provenance = Provenance("0.1.0", "my data: 3 files", "CC0-1.0", 7).after(
        10, 60.0, {"kbps": 1.5}
    )
    save_vae(tmp_path / "m.safetensors", tiny_vae(), provenance, ())
    checkpoint = load_checkpoint(tmp_path / "m.safetensors")
    assert checkpoint.provenance == provenance
    assert checkpoint.provenance.minutes == 1.0
    assert checkpoint.config == tiny_vae().config
    for name, tensor in tiny_vae().state_dict().items():
        stored = tensor.half().float() if tensor.ndim > 1 else tensor
        torch.testing.assert_close(checkpoint.tensors[name].float(), stored, rtol=0, atol=0)


def test_the_identity_is_that_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = load_tiny_model(tmp_path / "a", seed=0), load_tiny_model(tmp_path / "b", seed=1)
    again = load_model(tmp_path / "a" / "tiny.safetensors", vocoder=None)
    assert one.id == again.id
    assert one.id != other.id
    assert len(one.id) == 16


def test_model_files_can_be_read_by_others(tmp_path: Path) -> None:
    path, _ = write_tiny_model(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRGRP
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_pickles_are_refused_by_name_and_by_content(tmp_path: Path) -> None:
    pickle = tmp_path / "model.pt"
    torch.save({"weights": torch.zeros(2)}, pickle)
    renamed = tmp_path / "model.safetensors"
    renamed.write_bytes(pickle.read_bytes())
    for path in (pickle, renamed):
        with pytest.raises(CheckpointError, match="expected safetensors, got a pickle"):
            load_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 3, 200, -100])
def test_a_damaged_file_is_one_line(tmp_path: Path, keep: int) -> None:
    path, _ = write_tiny_model(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or foreign") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="another origin"):
        load_checkpoint(foreign)
    newer = tmp_path / "newer.safetensors"
    save_file({"a": torch.zeros(1)}, newer, {"format": "audiovae", "format_version": "9"})
    with pytest.raises(CheckpointError, match="version 1, got 9"):
        load_checkpoint(newer)
    facts = {"format": "audiovae", "format_version": "1", "kind": "vae", "config": "{}"}
    for more in ({}, {"provenance": '{"moon": "full"}', "quality_scale": "[]"}):
        save_file({"a": torch.zeros(1)}, newer, facts | more)
        with pytest.raises(CheckpointError, match="use the audiovae that wrote it, or a newer one"):
            load_checkpoint(newer)


def test_weights_must_be_those_of_the_config(tmp_path: Path) -> None:
    path, _ = write_tiny_model(tmp_path)
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    config = json.loads(metadata["config"])
    config["vae"]["width"] = 36
    save_file(tensors, path, {**metadata, "config": json.dumps(config)})
    with pytest.raises(CheckpointError, match="got others"):
        load_model(path, vocoder=None)


def test_a_vocoder_is_no_vae(tmp_path: Path) -> None:
    vae, vocoder = write_tiny_model(tmp_path)
    with pytest.raises(CheckpointError, match="expected a vae, got a vocoder"):
        load_model(vocoder)
    with pytest.raises(CheckpointError, match="expected a vocoder, got a vae"):
        load_vocoder(vae)


def test_a_model_is_sounded_by_the_vocoder_beside_it(tmp_path: Path) -> None:
    vae, vocoder = write_tiny_model(tmp_path)
    own = load_model(vae).vocoder
    assert own is not None
    assert own.config.width == load_checkpoint(vocoder).config.vocoder.width
    vocoder.unlink()
    shipped = load_model(vae).vocoder
    assert shipped is not None
    assert shipped.config.width == load_vocoder().config.width > own.config.width


def test_a_vocoder_of_another_spectrogram_is_refused(tmp_path: Path) -> None:
    other = ["spectrogram.sample_rate=22050", "spectrogram.max_hz=11025"]
    config = load_config(CONFIGS / "tiny.toml", other)
    path = tmp_path / "other.safetensors"
    save_vae(path, HVAE(config), Provenance(), ())
    model = load_model(path, vocoder=None)
    with pytest.raises(ModelMismatchError, match="by which files are cut into chunks"):
        Transformer(model, TransformSettings())
    with pytest.raises(CheckpointError, match="of one spectrogram, got"):
        load_model(path)


def test_an_unknown_name_lists_what_ships(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"shipped models \(base, timbre, vocoder\)"):
        find_checkpoint("bass")
    assert find_checkpoint("base").name == "base.safetensors"


def test_the_folder_of_a_training_run_is_its_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the folder of a training run"):
        find_checkpoint(tmp_path)
    assert not is_run(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert is_run(tmp_path)
    assert find_checkpoint(tmp_path) == tmp_path / "model.safetensors"
    (tmp_path / "base.safetensors").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "base.safetensors"
