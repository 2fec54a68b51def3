"""`python -m pipelines.timbre_morph` with a tiny model: sounds, page and contact sheet."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from audiovae import pretrained
from audiovae.audio import probe_audio, write_audio
from pipelines.timbre_morph import main
from tests.pipelines.conftest import Ended
from tests.small_models import write_tiny_timbre_model
from tests.tones import tones


@pytest.fixture(autouse=True, scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_timbre_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "PRETRAINED_DIR", folder)
        yield folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    write_audio(folder / "a b&c.wav", tones(30_000, 0)[None], 44_100)
    (folder / "bs").mkdir()
    for seed in (1, 2):
        write_audio(folder / "bs" / f"{seed}.wav", tones(20_000, seed)[None], 44_100)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Ended:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    written = capsys.readouterr()
    return Ended(status, written.out, written.err)


def test_steps_with_a_page_and_a_sheet(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = run(
        capsys, sounds / "a b&c.wav", sounds / "bs", "--output-dir", out, "--steps", "4",
        "--curve", "ease", "--format", "flac", "--polish", "0",
    )  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    assert "sounds=4/4" in ended.out
    names = ["00_0.000.flac", "01_0.259.flac", "02_0.741.flac", "03_1.000.flac"]
    assert sorted(p.name for p in out.iterdir()) == [
        ".audiovae.lock", *names, "contact_sheet.png", "morph.html"
    ]  # fmt: skip
    assert {probe_audio(out / name).num_samples for name in names} == {30_000}
    page = (out / "morph.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png') == page.count("<audio ") == 5
    source = os.path.relpath(sounds / "a b&c.wav", out).replace(" b&", "%20b%26")
    assert re.findall(r'<audio preload="none" src="([^"]+)"', page) == [source, *names]
    assert "a b&amp;c.wav to bs" in page
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width == 3 * 310 + 10
        assert len(sheet.getcolors(10**6) or ()) > 50


def test_nothing_is_replaced_unasked(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path
) -> None:
    ends = (sounds / "bs" / "1.wav", sounds / "bs" / "2.wav", "--output-dir", tmp_path / "o")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "01_1.000.wav").write_bytes(b"mine")
    ended = run(capsys, *ends, "--steps", "2", "--polish", "0")
    assert ended.status == 2
    assert "01_1.000.wav" in ended.err
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["01_1.000.wav"]
    assert run(capsys, *ends, "--steps", "2", "--polish", "0", "--overwrite").status == 0
    assert probe_audio(tmp_path / "o" / "01_1.000.wav").num_samples == 20_000


def test_an_input_is_never_replaced(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path
) -> None:
    own = tmp_path / "00_0.000.wav"
    own.write_bytes((sounds / "bs" / "1.wav").read_bytes())
    ended = run(capsys, own, sounds / "bs", "--output-dir", tmp_path, "--overwrite")
    assert ended.status == 2
    assert own.read_bytes() == (sounds / "bs" / "1.wav").read_bytes()


@pytest.mark.parametrize("content", ["a", "blend"])
def test_a_glide_is_one_sound(
    capsys: pytest.CaptureFixture[str], sounds: Path, tmp_path: Path, content: str
) -> None:
    ends = (sounds / "bs" / "1.wav", sounds / "bs" / "2.wav", "--output-dir", tmp_path)
    ended = run(capsys, *ends, "--glide", "0.3", "--content", content, "--polish", "0")
    assert ended.status == 0
    assert probe_audio(tmp_path / "glide.wav").num_samples == 20_000
    assert (tmp_path / "morph.html").read_text(encoding="utf-8").count("<audio ") == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["1.wav", "2.wav"], 2, "--output-dir"),
        (["1.wav", "2.wav", "--output-dir", "o", "--steps", "1"], 2, "--steps"),
        (["1.wav", "3.wav", "--output-dir", "o"], 1, "3.wav: expected"),
        (["1.wav", "2.wav", "--output-dir", "o", "--checkpoint", "x"], 1, "shipped models"),
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
    monkeypatch.chdir(sounds / "bs")
    ended = run(capsys, *arguments)
    assert ended.status == status
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not Path("o").exists()
