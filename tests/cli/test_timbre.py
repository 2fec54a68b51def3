"""`audiovae morph` and `audiovae timbre`, run as a user runs them, with a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiovae import pretrained
from audiovae.audio import probe_audio, read_audio, write_audio
from audiovae.cli import main
from audiovae.timbre.library import default_library
from tests.small_models import write_tiny_timbre_model
from tests.tones import tones


@pytest.fixture(autouse=True, scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_timbre_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "PRETRAINED_DIR", folder)
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for name, seed in (("a", 0), ("b", 4)):
        write_audio(folder / f"{name}.wav", tones(20_000, seed)[None], 22_050)
    write_audio(folder / "silence.wav", np.zeros((1, 20_000)), 22_050)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def samples(path: Path) -> np.ndarray:
    return read_audio(path).waveform


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--amount", "-0.5", "--curve", "spherical", "--keep-loudness"),
        ("--glide", "0.2", "--levels", "0,1"),
        ("--content", "blend"),
    ],
)
def test_morph(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / "out.flac"
    status, said, err = run(capsys, "morph", sounds / "a.wav", sounds / "b.wav", out, *options)
    assert (status, err) == (0, "")
    info, source = probe_audio(out), probe_audio(sounds / "a.wav")
    assert said == f"{out}: {source.duration_seconds:.2f} s, 1 channel\n"
    assert (info.sample_rate, info.num_samples) == (source.sample_rate, source.num_samples)


def test_amount_0_is_resynth(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path
) -> None:
    run(capsys, "resynth", sounds / "a.wav", tmp_path / "r.wav", "--checkpoint", "timbre")
    run(capsys, "morph", sounds / "a.wav", sounds / "b.wav", tmp_path / "0.wav", "--amount", "0")
    run(capsys, "morph", sounds / "a.wav", sounds / "b.wav", tmp_path / "1.wav", "--amount", "1")
    assert (tmp_path / "0.wav").read_bytes() == (tmp_path / "r.wav").read_bytes()
    assert (tmp_path / "1.wav").read_bytes() != (tmp_path / "r.wav").read_bytes()


def test_a_saved_timbre_is_the_file_it_was_measured_on(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path
) -> None:
    status, out, _ = run(capsys, "timbre", "save", "bee", sounds / "b.wav")
    assert status == 0
    assert "the mean of 1 file\n" in out
    assert run(capsys, "timbre", "list")[1].startswith("bee: model timbre (")
    (default_library() / "ant.timbre").write_bytes(b"no timbre")
    status, said, err = run(capsys, "timbre", "list")
    assert status == 3
    assert said.startswith("bee: model timbre (")
    assert "ant.timbre: expected a timbre file" in err
    (default_library() / "ant.timbre").unlink()
    run(capsys, "timbre", "apply", "bee", sounds / "a.wav", tmp_path / "1.wav")
    run(capsys, "morph", sounds / "a.wav", sounds / "b.wav", tmp_path / "2.wav", "--amount", "1")
    run(capsys, "morph", sounds / "a.wav", "bee", tmp_path / "3.wav", "--amount", "1")
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "2.wav").read_bytes()
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "3.wav").read_bytes()
    status, _, err = run(capsys, "timbre", "save", "bee", sounds / "a.wav")
    assert status == 1
    assert "add --overwrite" in err
    status, out, _ = run(capsys, "timbre", "save", "bee", sounds, "--overwrite")
    assert status == 3  # silence is left out
    assert out.endswith("2 files, 1 left out\n")
    assert run(capsys, "timbre", "remove", "bee")[0] == 0
    assert run(capsys, "timbre", "list")[1].startswith("no timbre is saved in ")


def test_another_models_timbre_is_refused(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path
) -> None:
    run(capsys, "timbre", "save", "old", sounds / "b.wav")
    other, _ = write_tiny_timbre_model(tmp_path, seed=7)
    arguments = ("old", sounds / "a.wav", tmp_path / "o.wav", "--checkpoint", other)
    status, _, err = run(capsys, "timbre", "apply", *arguments)
    assert status == 1
    assert "measure it again with this model" in err
    assert not (tmp_path / "o.wav").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["morph", "a.wav", "nowhere.wav", "o.wav"], 1, "nowhere.wav: expected"),
        (["morph", "a.wav", "b.wav", "o.wav", "--curve", "ease"], 2, "is for --glide"),
        (["morph", "a.wav", "b.wav", "o.wav", "--amount", "nan"], 2, "--amount"),
        (["morph", "a.wav", "b.wav", "o.wav", "--amount", "1e20"], 2, "--amount"),
        (["morph", "a.wav", "nobody", "o.wav"], 1, "nobody: expected an audio file"),
        (["morph", "nobody", "a.wav", "o.wav"], 1, "expected an audio file as A"),
        (["morph", "a.wav", "b.wav", "b.wav"], 2, "inputs are never written to"),
        (["morph", "a.wav", "b.wav", "o.xyz"], 2, ".wav, .flac or .ogg"),
        (["morph", "a.wav", "b.wav", "o.wav", "--levels", "x"], 2, "--levels: expected numbers"),
        (["morph", "a.wav", "b.wav", "o.wav", "--levels", "9"], 1, "expected levels from 0"),
        (["morph", "a.wav", "b.wav", "o.wav", "--content", "c"], 2, "--content: expected"),
        (["morph", "a.wav", "b.wav", "o.wav", "--amount", "1", "--glide", "1"], 2, "got both"),
        (["morph", "a.wav", "b.wav", "o.wav", "--checkpoint", "big"], 1, "shipped models"),
        (["timbre", "apply", "nobody", "a.wav", "o.wav"], 1, "got 'nobody'"),
        (["timbre", "save", "no/name", "a.wav"], 1, "expected a name of up to"),
        (["timbre", "save", "nothing", "silence.wav"], 1, "silence.wav: expected sound to take"),
        (["timbre", "nonsense"], 2, "nonsense"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    capsys: pytest.CaptureFixture[str],
    sounds: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(sounds)
    before = sorted(sounds.iterdir())
    ended, _, err = run(capsys, *arguments)
    assert ended == status
    assert message in err
    assert err.count("\n") == 1
    assert sorted(sounds.iterdir()) == before
