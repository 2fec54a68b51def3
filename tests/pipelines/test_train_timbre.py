"""`python -m pipelines.train` from a soundfont to a model with a timbre code."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiovae.checkpoint import load_model
from pipelines import train
from tests.small_models import write_tiny_model
from tests.soundfonts import write_soundfont

pytest.importorskip("tinysoundfont")

CONFIG = """
kind = "timbre"
name = "test"
quality = false
bottleneck = { kind = "gaussian" }
timbre = { channels = 4, width = 8, blocks = 0, context_channels = 8 }
[vae]
width = 8
expansion = 2
head_blocks = 1
levels = [
    { stride = 2, groups = 1, channels = 4, encoder_blocks = 0, decoder_blocks = 1 },
    { stride = 4, groups = 1, channels = 2, encoder_blocks = 0, decoder_blocks = 0 },
]
[pairs]
phrases = 3
players = 3
made_up_instruments = 2
electronic_instruments = 1
frames = 64
validation_phrases = 2
validation_players = 2
[training]
batch_size = 4
crop_frames = 32
"""


def command(config: Path, data: Path, run_dir: Path, *more: str) -> list[str]:
    given = ["--config", config, "--data", data, "--output-dir", run_dir, "--device", "cpu"]
    return [*map(str, given), *more]


def test_a_soundfont_becomes_a_model_and_a_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run_dir = tmp_path / "test.toml", tmp_path / "run"
    config.write_text(CONFIG)
    soundfont = write_soundfont(tmp_path / "test.sf2")
    arguments = command(config, soundfont, run_dir, "--steps", "2", "--licence", "MIT")
    assert train.main(arguments) == 0
    written = capsys.readouterr()
    assert written.err == ""
    assert "played_phrases=5/5" in written.out
    assert "validation step=2 swap_known=" in written.out
    model = load_model(run_dir / "model.safetensors", vocoder=None)
    assert model.config.timbre is not None
    assert model.provenance.licence == "MIT"
    assert model.provenance.data == "test.sf2"
    assert (run_dir / "card.md").is_file()
    assert train.main([*arguments, "--resume"]) == 0
    _, beside = write_tiny_model(tmp_path)
    beside.rename(run_dir / "vocoder.safetensors")  # has no part in it
    further = command(config, soundfont, tmp_path / "more", "--steps", "1", "--init", str(run_dir))
    assert train.main(further) == 0
    data = load_model(tmp_path / "more" / "model.safetensors", vocoder=None).provenance.data
    assert data == "test.sf2; started from vae of 2 steps, trained on: test.sf2"


def test_weights_without_a_timbre_code_are_no_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "test.toml"
    config.write_text(CONFIG)
    soundfont = write_soundfont(tmp_path / "test.sf2")
    assert train.main(command(config, soundfont, tmp_path / "run", "--init", "base")) == 1
    assert "expected weights with a timbre code" in capsys.readouterr().err


def test_what_is_no_soundfont_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, wrong = tmp_path / "test.toml", tmp_path / "wrong.sf2"
    config.write_text(CONFIG)
    wrong.write_bytes(b"no soundfont")
    assert train.main(command(config, wrong, tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert "expected a soundfont (.sf2 or .sf3)" in error
    assert error.count("\n") == 1
