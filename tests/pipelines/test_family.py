"""`python -m pipelines.evaluate --family`: the table of the VAE family, from tiny runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from audiovae import pretrained
from audiovae.audio import Clip, write_audio
from audiovae.commands import UsageProblem
from pipelines.evaluate import main
from pipelines.evaluation.family import find_members
from pipelines.train import main as train_main
from tests.small_models import CONFIGS, write_tiny_model
from tests.tones import tones, write_tones

RATE = 44_100


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two steps: one without a rate, one that writes files."""
    folder = tmp_path_factory.mktemp("family")
    data = write_tones(folder / "data", count=3, seconds=0.4)
    for kind in ("deterministic", "vq"):
        settings = [
            "quality=false",
            f"bottleneck.kind={kind}",
            "bottleneck.codes=8",
            "bottleneck.codebooks=2",
            "vae.width=8",
            "training.batch_size=2",
        ]
        arguments = [f"--set={setting}" for setting in settings]
        status = train_main(
            [
                *("--config", str(CONFIGS / "tiny.toml"), "--data", str(data), "--steps", "2"),
                *("--output-dir", str(folder / "runs" / kind), "--device", "cpu", *arguments),
            ]
        )
        assert status == 0
    return folder / "runs"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for index in range(3):
        path = folder / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        write_audio(path, Clip(tones(RATE // 2, seed=50 + index)[None], RATE))
    return folder


@pytest.fixture
def small_vocoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped vocoder replaced by one of two narrow blocks."""
    _, vocoder = write_tiny_model(tmp_path / "shipped")
    assert vocoder.stem == pretrained.VOCODER
    monkeypatch.setattr(pretrained, "PRETRAINED_DIR", vocoder.parent)


def evaluate(clips: Path, results: Path, members: Sequence[Path | str], *more: str) -> int:
    family = [f"--family={member}" for member in members]
    return main(
        [*family, "--data", str(clips), "--output-dir", str(results), "--samples", "3", *more]
    )


@pytest.mark.usefixtures("small_vocoder")
def test_every_member_is_measured_on_the_same_clips(
    runs: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    train_data = ("--train-data", str(runs.parent / "data"))
    assert evaluate(clips, results, [runs], *train_data) == 0
    assert "done failed=0" in capsys.readouterr().out
    with (results / "family.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"deterministic", "vq"}
    plain, vq = rows["deterministic"], rows["vq"]
    assert plain["elbo"] == plain["kbps"] == plain["file_kbps"] == ""
    elbo = float(vq["reconstruction"]) - float(vq["kl"])
    assert float(vq["elbo"]) == pytest.approx(elbo, abs=0.01)
    assert float(vq["file_kbps"]) > float(vq["kbps"]) > 0
    for row in rows.values():
        for key in ("log_mel_db", "mel_distance", "frechet", "nearest", "path_ratio"):
            assert np.isfinite(float(row[key]))
        assert float(row["path_ratio"]) >= 1 - 1e-6
        assert len(row["model_id"]) == 16
    text = (results / "family.md").read_text()
    assert all(title in text for title in ("Likelihood and rate", "Sound and samples", "## Runs"))
    assert "active_units_1.3Hz" in plain


@pytest.mark.usefixtures("small_vocoder")
def test_the_same_seed_gives_the_same_table(runs: Path, clips: Path, tmp_path: Path) -> None:
    for name in ("first", "again"):
        assert evaluate(clips, tmp_path / name, [runs / "vq"]) == 0
    first, again = ((tmp_path / n / "family.csv").read_bytes() for n in ("first", "again"))
    assert first == again


@pytest.mark.usefixtures("small_vocoder")
def test_an_unreadable_clip_is_named_and_the_rest_goes_on(
    runs: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVEnothing")
    assert evaluate(clips, tmp_path / "results", [runs / "vq"]) == 3
    assert "broken.wav" in capsys.readouterr().err


def test_results_are_not_overwritten(
    runs: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "family.md").write_text("mine")
    assert evaluate(clips, tmp_path, [runs]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "family.md").read_text() == "mine"
    assert evaluate(clips, tmp_path / "new", [runs], "--qualities", "3") == 2
    assert "--qualities: expected it without --family" in capsys.readouterr().err


def test_members_are_runs_folders_of_runs_and_files(runs: Path, tmp_path: Path) -> None:
    assert set(find_members([str(runs)])) == {"deterministic", "vq"}
    assert list(find_members([str(runs / "vq")])) == ["vq"]
    assert list(find_members([str(runs / "vq" / "model.safetensors")])) == ["vq"]
    with pytest.raises(UsageProblem, match=r"expected a run.*model\.safetensors"):
        find_members([str(tmp_path)])
    with pytest.raises(UsageProblem, match="two 'vq'"):
        find_members([str(runs), str(runs / "vq")])
