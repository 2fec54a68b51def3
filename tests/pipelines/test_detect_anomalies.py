"""`detect_anomalies` from folders to verdicts, with the tiny model."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from audiovae.checkpoint import load_checkpoint
from audiovae.measuring import load_arrays
from pipelines.detect_anomalies import main
from tests.pipelines.headless import document
from tests.pipelines.measured_folders import write_machine
from tests.small_models import write_tiny_model

RESULTS = ("scores.csv", "seconds.jsonl", "anomalies.json", "anomalies.html")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: a machine 12 times; to judge, 3 more and 3 with a burst of noise."""
    place = tmp_path_factory.mktemp("anomalies")
    write_tiny_model(place / "models")
    write_machine(place / "normal", 12)
    write_machine(place / "test", 3, first=20)
    write_machine(place / "test" / "odd", 3, noise=0.5, first=30)
    lines = ["file,label", *(f"{i:03d}.wav,{int(i >= 30)}" for i in (20, 21, 22, 30, 31, 32))]
    (place / "labels.csv").write_text("\n".join(lines))
    assert run(place) == 0
    return place


def run(place: Path, *more: str) -> int:
    arguments = ["--normal", place / "normal", "--test", place / "test"]
    arguments += ["--labels", place / "labels.csv", "--executor", "local", "--workers", "1"]
    checkpoint = place / "models" / "tiny.safetensors"
    return main([*map(str, arguments), "--checkpoint", str(checkpoint), *more])


def output(place: Path) -> Path:
    return place / "test_anomalies"


def test_a_burst_of_noise_is_more_surprising_than_the_machine(made: Path) -> None:
    with (output(made) / "scores.csv").open(encoding="utf-8") as file:
        scores = {row["file"]: float(row["score"]) for row in csv.DictReader(file)}
    assert list(scores) == sorted(scores)
    odd = [score for name, score in scores.items() if name.startswith("odd/")]
    assert len(odd) == 3
    assert min(odd) > max(score for name, score in scores.items() if "/" not in name)
    facts = json.loads((output(made) / "anomalies.json").read_text())
    assert facts["auc"] == 1.0
    assert facts["normal_files"] == 12
    assert facts["threshold_is_extrapolated"]  # a rate of 0.01 from 12 files


def test_every_second_has_a_score(made: Path) -> None:
    lines = (output(made) / "seconds.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["scores"]) for line in lines] == [1] * 6


def test_the_page_shows_heat_maps_that_exist(made: Path, tmp_path: Path) -> None:
    page = output(made) / "anomalies.html"
    text = page.read_text(encoding="utf-8")
    for rank in range(1, 7):
        assert f"heatmaps/{rank:03d}_heat.png" in text
        assert (output(made) / "heatmaps" / f"{rank:03d}_heat.png").stat().st_size > 0
    shown = document(page, profile=tmp_path)
    assert shown.index("odd/030.wav") < shown.index("020.wav")  # the most surprising first


def test_a_rerun_measures_only_what_is_new(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (output(made) / name).read_bytes() for name in RESULTS}
    profiles = {p: p.stat().st_mtime_ns for p in output(made).rglob("*.profile.npz")}
    assert run(made) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2
    assert before == {name: (output(made) / name).read_bytes() for name in RESULTS}
    assert profiles == {path: path.stat().st_mtime_ns for path in profiles}


def test_a_bad_file_is_named_and_the_others_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_model(tmp_path / "models")
    write_machine(tmp_path / "normal", 6)
    write_machine(tmp_path / "test", 2, first=20)
    (tmp_path / "test" / "bad.wav").write_bytes(b"RIFF and nothing more")
    (tmp_path / "labels.csv").write_text("file,label\n020.wav,normal\ngone.wav,anomaly\n")
    assert run(tmp_path) == 3
    said = capsys.readouterr().err
    assert "bad.wav" in said
    assert "--labels: 1 rows name no test file, as 'gone.wav'" in said
    assert (output(tmp_path) / "scores.csv").read_text().count("\n") == 3
    assert json.loads((output(tmp_path) / "anomalies.json").read_text())["auc"] is None


@pytest.mark.parametrize(
    ("labels", "reason"),
    [("file,mood\na,1\n", "columns file and label"), ("file,label\n020.wav,odd\n", "got 'odd'"),
     ("", "an empty file"), ("file,label\n", "got none"), ("file,label\n\xe4.wav,1\n", "as UTF-8"),
     ("file,label\nother.wav,1\n", "names of test files")],
)  # fmt: skip
def test_wrong_labels_are_explained(
    made: Path, tmp_path: Path, labels: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_bytes(labels.encode("latin-1"))
    assert run(made, "--labels", str(tmp_path / "labels.csv")) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert ("measuring" in said.out) == (reason == "names of test files")  # others at once


def test_an_adapted_model_sees_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_model(tmp_path / "models")
    write_machine(tmp_path / "normal", 6)
    write_machine(tmp_path / "test", 2, first=20)
    (tmp_path / "labels.csv").write_text("file,label\n020.wav,normal\n")
    assert run(tmp_path, "--adapt", "0.05") == 0
    assert "validation step=" in capsys.readouterr().out
    assert json.loads((output(tmp_path) / "anomalies.json").read_text())["normal_files"] == 6
    (adapted,) = output(tmp_path).glob("adapted_*/model.safetensors")
    provenance = load_checkpoint(adapted).provenance
    assert provenance.steps > 0
    assert provenance.licence == "none"  # that of the model
    (profile, *_) = (output(tmp_path) / "normal").rglob("*.profile.npz")
    disturbances = load_arrays(profile)["disturbances"]
    assert disturbances.shape == (1, 3)  # blocks of 0.37 s in 0.8 s
    assert np.isfinite(disturbances).all()
    assert run(tmp_path, "--adapt", "0.05") == 0
    assert "validation step=" not in capsys.readouterr().out  # it is taken as it is
    write_machine(tmp_path / "normal", 1, first=6)
    assert run(tmp_path, "--adapt", "0.05") == 0
    assert "validation step=" in capsys.readouterr().out  # there is more to learn from


def test_too_little_normal_sound_is_refused_before_anything_is_learnt(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_machine(tmp_path / "normal", 4)
    arguments = ["--normal", tmp_path / "normal", "--test", made / "test", "--adapt", "0.05"]
    checkpoint = made / "models" / "tiny.safetensors"
    results = tmp_path / "results"
    assert main([*map(str, arguments), "--checkpoint", str(checkpoint),
                 "--output-dir", str(results)]) == 1  # fmt: skip
    said = capsys.readouterr()
    assert "expected at least 5 normal files" in said.err
    assert "step=" not in said.out


def test_outputs_never_hold_the_inputs(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(made, "--output-dir", str(made)) == 2
    assert "does not contain the inputs" in capsys.readouterr().err


def test_a_missing_folder_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--normal", str(tmp_path / "no"), "--test", str(tmp_path)]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_scores_of_something_else_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("normal", "test"):
        (tmp_path / name).mkdir()
    scores = output(tmp_path) / "scores.csv"
    scores.parent.mkdir()
    scores.write_text("mine")
    arguments = ["--normal", str(tmp_path / "normal"), "--test", str(tmp_path / "test")]
    assert main(arguments) == 2
    assert "with scores.csv of something else" in capsys.readouterr().err
    assert scores.read_text() == "mine"
