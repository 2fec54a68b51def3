"""`python -m pipelines.train` with classes, with pitch, and with a changed config."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiovae.checkpoint import load_checkpoint
from pipelines.train import main
from tests.small_models import CONFIGS
from tests.tones import write_tones

TINY = ("--config", str(CONFIGS / "tiny.toml"), "--device", "cpu", "--steps", "2")
SMALLER = ("--set=vae.width=8", "--set=training.batch_size=2", "--set=quality=false")
CLASSICAL = "--set=bottleneck.kind=gaussian"


def train(data: Path, run: Path, *more: str) -> int:
    arguments = [*TINY, *SMALLER, CLASSICAL, "--data", str(data), "--output-dir", str(run)]
    return main([*arguments, *more])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("bells", "drums"):
        write_tones(tmp_path / "data" / name, count=2, seconds=0.3)
    return tmp_path / "data"


def classes(run: Path) -> tuple[str, ...]:
    label = load_checkpoint(run / "model.safetensors").config.label
    assert label is not None
    return label.classes


def test_folders_are_classes_and_a_run_goes_on_with_them(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(data, run, "--set=label.embedding_channels=4") == 0
    assert classes(run) == ("bells", "drums")
    state = run / "state.pt"
    assert state.is_file()
    more = ("--set=label.embedding_channels=4", "--resume", "--steps", "3")
    assert train(data, run, *more) == 0
    assert load_checkpoint(run / "model.safetensors").provenance.steps == 3


def test_a_table_names_the_classes(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,class\nbells/tone_0.wav,bright\n")
    more = ("--set=label.embedding_channels=4", "--labels", str(table))
    assert train(data, tmp_path / "run", *more) == 0
    assert classes(tmp_path / "run") == ("bells", "bright", "drums")


def test_pitch_is_found_in_audio(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("swift_f0")
    assert train(data, tmp_path / "run", "--set=pitch.dropout=0.2") == 0
    checkpoint = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert any(name.startswith("pitch.layers") for name in checkpoint.tensors)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("objective.beta", "expected a setting like objective.beta=4, got 'objective.beta'"),
        ("=4", "expected a setting like"),
        ("objective.bata=4", "did you mean 'beta'?"),
        ("bottleneck.kind=vqq", "got 'vqq'"),
    ],
)
def test_a_wrong_setting_is_an_error_in_one_line(
    data: Path, tmp_path: Path, setting: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    status = train(data, tmp_path / "run", f"--set={setting}")
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert said in error
    assert len(error.strip().splitlines()) == 1
