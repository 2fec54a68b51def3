"""`python -m pipelines.evaluate_timbre`, from a soundfont to a table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from audiovae.checkpoint import Provenance, load_model, save_vae
from audiovae.models.hvae import HVAE
from pipelines import evaluate_timbre
from pipelines.evaluation import orchestra
from pipelines.evaluation.timbre_bench import COPY_INPUT, GRIFFIN_LIM, TRANSFER, TimbreRow, Trial
from pipelines.evaluation.timbre_tables import way_means
from tests.models.test_timbre import timbre_config
from tests.small_models import stirred, write_tiny_model
from tests.soundfonts import write_soundfont

pytest.importorskip("tinysoundfont")
pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A soundfont and a model with random weights."""
    made = tmp_path_factory.mktemp("timbre")
    write_soundfont(made / "test.sf2", (0, 40))
    torch.manual_seed(0)
    save_vae(made / "timbre.safetensors", stirred(HVAE(timbre_config()), 0), Provenance(), ())
    write_tiny_model(made)
    return made


def command(folder: Path, output_dir: Path, *more: str) -> list[str]:
    given = ["--soundfont", folder / "test.sf2", "--output-dir", output_dir]
    model = ["--checkpoint", folder / "timbre.safetensors", "--programs", "0,40"]
    model += ["--vocoder", folder / "vocoder.safetensors"]
    return [str(part) for part in [*given, *model, "--phrases", "2", "--device", "cpu", *more]]


@pytest.mark.slow
def test_a_soundfont_becomes_a_table(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orchestra, "_SECONDS", 1.5)
    monkeypatch.setattr(orchestra, "_CLASSIFIER_PHRASES", 3)
    plain = ["--plain", str(folder / "tiny.safetensors")]
    assert evaluate_timbre.main(command(folder, tmp_path / "out", *plain)) == 0
    text = (tmp_path / "out" / "timbre_evaluation.md").read_text()
    assert "| **transfer** |" in text
    assert "there and back" in text
    assert "timbre: decode of z1 + z2" in text
    with (tmp_path / "out" / "timbre_evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["way"] for row in rows}) >= 6
    copied = [row for row in rows if row["way"] == COPY_INPUT]
    assert len(copied) == 4
    best = [row for row in rows if row["way"] == GRIFFIN_LIM]
    total = [sum(float(row["mel_distance"]) for row in each) for each in (best, copied)]
    assert total[0] < total[1]
    assert "done trials=4" in capsys.readouterr().out
    assert evaluate_timbre.main(command(folder, tmp_path / "out", *plain)) == 2
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--programs", "0"], "at least two different numbers"),
        (["--programs", "0,77"], "lacks 77"),
        (["--checkpoint", "base"], "expected a model with a timbre code"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    folder: Path,
    tmp_path: Path,
    change: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = evaluate_timbre.main([*command(folder, tmp_path / "out", "--plain", "none"), *change])
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert message in error
    assert error.count("\n") == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_timbre.main(["--help"]) == 0
    assert "Example:" in capsys.readouterr().out


def test_distances_are_divided_by_that_of_the_input() -> None:
    from audiovae.analysis.timbre_metrics import TimbreDistances

    trial = Trial(0, 0, 1, 1)
    rows = [
        TimbreRow(COPY_INPUT, trial, False, TimbreDistances(4.0, 0.5, 1.0, 900.0)),
        TimbreRow(TRANSFER, trial, True, TimbreDistances(1.0, 0.9, 0.5, 900.0)),
        TimbreRow(COPY_INPUT, trial, False, TimbreDistances(2.0, 0.5, None, 900.0)),
        TimbreRow(TRANSFER, trial, False, TimbreDistances(2.0, 0.7, None, 900.0)),
    ]
    copied, moved = way_means(rows)
    assert (copied.way, copied.of_copy_input, copied.pitch) == (COPY_INPUT, 1.0, 1.0)
    assert (moved.mel_distance, moved.of_copy_input) == (1.5, 0.5)
    assert (moved.pitch, moved.is_target) == (0.5, 0.5)


def test_the_timbre_model_of_the_tests_is_one(folder: Path) -> None:
    assert load_model(folder / "timbre.safetensors", vocoder=None).config.timbre is not None
