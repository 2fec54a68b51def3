"""Training of a model with a timbre code: it learns, measures swaps, and writes a model."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from audiovae.checkpoint import Provenance, load_checkpoint, load_model
from audiovae.config import ModelConfig
from audiovae.latents import Conditions, Latents
from audiovae.models.output import VAEOutput
from audiovae.training.loop import Watcher, train
from audiovae.training.state import Progress
from audiovae.training.timbre import TimbreTask, disagreement, same_share
from tests.bands import band_sets
from tests.models.test_timbre import timbre_config

CPU = torch.device("cpu")


def task(run_dir: Path, **training: object) -> TimbreTask:
    config = timbre_config()
    settings = {"steps": 80, "batch_size": 8, "crop_frames": 64, "log_every_steps": 1, **training}
    config = ModelConfig.model_validate(
        {**config.model_dump(), "training": {**config.training.model_dump(), **settings}}
    )
    return TimbreTask(config, band_sets(), run_dir, CPU, Provenance(data="bands", licence="CC0"))


def rows(run_dir: Path, log: str) -> list[dict[str, str]]:
    with (run_dir / f"{log}.csv").open() as file:
        return list(csv.DictReader(file))


def test_it_learns_within_seconds(tmp_path: Path) -> None:
    train(task(tmp_path, learning_rate=1e-2), tmp_path, CPU)
    distortion = [float(row["distortion"]) for row in rows(tmp_path, "metrics")]
    assert sum(distortion[-10:]) < 0.82 * sum(distortion[:10])


def test_a_run_writes_a_model_that_loads(tmp_path: Path) -> None:
    train(task(tmp_path, steps=3), tmp_path, CPU)
    names = {"swap_known", "own_known", "swap_unknown", "own_unknown"}
    measured = rows(tmp_path, "validation")[0]
    assert names <= set(measured)
    assert all(float(measured[name]) > 0 for name in names)
    assert float(rows(tmp_path, "metrics")[-1]["sum_distortion"]) > 0
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    assert (checkpoint.kind, checkpoint.config.kind) == ("vae", "timbre")
    assert checkpoint.provenance.data == "bands"
    model = load_model(tmp_path / "model.safetensors", vocoder=None)
    assert model.frequency_table is None
    assert model.config.timbre is not None
    assert (tmp_path / "samples" / "step_0000003.png").is_file()


def test_a_killed_run_goes_on_as_it_would_have(tmp_path: Path) -> None:
    class StopAfterTwo(Watcher):
        step = 0

        def stepped(self, progress: Progress) -> None:
            self.step = progress.step

        def wants_stop(self) -> bool:
            return self.step >= 2

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(task(whole, steps=4), whole, CPU)
    train(task(killed, steps=4), killed, CPU, watcher=StopAfterTwo())
    train(task(killed, steps=4), killed, CPU, resume=True)
    models = [load_checkpoint(run / "model.safetensors").tensors for run in (whole, killed)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_shares_fall_from_reconstruction_to_swaps() -> None:
    shares = [same_share(fraction) for fraction in (0.0, 0.1, 0.2, 0.5, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5 > 0.2 > shares[2] == shares[4]


def latents_of(group: torch.Tensor) -> VAEOutput:
    frames = torch.full((len(group),), group.shape[2])
    value = Latents((group,), (0,), (1,), frames, Conditions(), model_id="")
    return VAEOutput(group, (group,), value)


def test_disagreement_is_between_none_and_all() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 4, 3, 500, generator=draw)
    assert float(disagreement(latents_of(torch.cat([first, first])), 4)) == 0
    apart = disagreement(latents_of(torch.cat([first, second])), 4)
    assert float(apart) == pytest.approx(1.0, abs=0.1)
    scaled = disagreement(latents_of(100 * torch.cat([first, second])), 4)
    assert float(scaled) == pytest.approx(float(apart), rel=1e-4)
