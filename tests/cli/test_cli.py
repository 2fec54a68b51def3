"""The `audiovae` command, run as a user runs it, with the models that ship."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiovae.audio import probe_audio
from audiovae.cli import main
from audiovae.pretrained import find_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
CROW = EXAMPLES / "crow.mp3"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_encode_info_decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded, sound = tmp_path / "crow.avae", tmp_path / "crow.wav"
    status, out, _ = run(capsys, "encode", CROW, coded, "--quality", "4")
    assert status == 0
    assert f"{coded.stat().st_size} bytes" in out
    status, out, _ = run(capsys, "info", coded)
    assert status == 0
    kbps = coded.stat().st_size * 8 / 1000 / probe_audio(CROW).duration_seconds
    assert f"kbps: {kbps:.4f}" in out
    assert "damage: none" in out
    assert "bytes of corrections:" in out
    assert "kbps at 43.1Hz:" in out
    assert run(capsys, "info", coded, "--checkpoint", "base")[1] == out
    assert "kbps by level: unknown" in run(capsys, "info", coded, "--checkpoint", "timbre")[1]
    status, _, _ = run(capsys, "decode", coded, sound)
    assert status == 0
    assert probe_audio(sound).num_samples == probe_audio(CROW).num_samples


def test_resynth_is_the_decode_of_the_encoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "encode", CROW, tmp_path / "a.avae")
    run(capsys, "decode", tmp_path / "a.avae", tmp_path / "a.wav")
    run(capsys, "resynth", CROW, tmp_path / "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    run(capsys, "decode", tmp_path / "a.avae", tmp_path / "plain.wav", "--polish", "0")
    run(capsys, "resynth", CROW, tmp_path / "plain_too.wav", "--polish", "0")
    assert (tmp_path / "plain.wav").read_bytes() == (tmp_path / "plain_too.wav").read_bytes()
    assert (tmp_path / "plain.wav").read_bytes() != (tmp_path / "a.wav").read_bytes()
    status, _, err = run(
        capsys, "decode", tmp_path / "a.avae", tmp_path / "c.wav", "--polish", "65"
    )
    assert status == 2
    assert "--polish" in err


def test_home_is_a_path_wherever_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.safetensors").write_bytes(find_checkpoint("base").read_bytes())
    (tmp_path / "models" / "vocoder.safetensors").write_bytes(
        find_checkpoint("vocoder").read_bytes()
    )
    checkpoint = "--checkpoint=~/models/mine.safetensors"
    status, _, err = run(capsys, "encode", CROW, "~/crow.avae", checkpoint)
    assert (status, err) == (0, "")
    assert (tmp_path / "crow.avae").stat().st_size > 0


def test_a_range_and_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded, sound = tmp_path / "a.avae", tmp_path / "a.wav"
    run(capsys, "encode", CROW, coded)
    status, _, _ = run(capsys, "decode", coded, sound, "--start", "0.1", "--duration", "0.2")
    assert status == 0
    assert probe_audio(sound).num_samples == round(0.2 * 44_100)
    broken = bytearray(coded.read_bytes())
    broken[-3] ^= 1
    coded.write_bytes(broken)
    status, _, err = run(capsys, "decode", coded, tmp_path / "b.wav")
    assert status == 1
    assert "chunk 0 of channel 0" in err
    status, _, err = run(capsys, "decode", coded, tmp_path / "b.wav", "--salvage")
    assert status == 3
    assert "silence stands for 0.0 to 0.5 s" in err
    status, out, _ = run(capsys, "info", coded)
    assert status == 3
    assert "damage: chunk 0 of channel 0" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["encode", "nowhere.wav", "out.avae"], 1, "nowhere.wav: expected"),
        (["encode", str(CROW), "out.mp3"], 2, "a name ending in .avae"),
        (["encode", str(CROW), "out.avae", "--quality", "9"], 2, "--quality"),
        (["encode", str(CROW), "out.avae", "--checkpoint", "bass"], 1, "shipped models"),
        (["decode", str(CROW), "out.wav"], 1, "compressed file that starts with AVAE"),
        (["resynth", str(CROW), "out.xyz"], 2, ".wav, .flac or .ogg"),
        (["resynth", str(CROW), "."], 2, ".wav, .flac or .ogg"),
        (["encode", str(CROW), "nowhere/out.avae"], 2, "make nowhere first"),
        (["encode", str(CROW), "out.avae", "--device", "tpu"], 2, "--device: expected cpu"),
        (["encode", str(CROW), "out.avae", "--device", "cuda:99"], 2, "--device: expected cpu"),
        (["info", str(EXAMPLES / "LICENSES.md")], 1, "expected"),
        (["nonsense"], 2, "nonsense"),
        (["encode", "", "out.avae"], 2, "got an empty one"),
        (["encode", str(CROW), "out.avae", "--checkpoint="], 2, "--checkpoint: expected a value"),
        (
            ["encode", str(CROW), "o.avae", "--kbps", "2", "--quality", "5"],
            2,
            "--quality: expected",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, _, err = run(capsys, *arguments)
    assert ended == status
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_being_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.avae"
    target.write_bytes(b"mine")
    status, _, err = run(capsys, "encode", CROW, target)
    assert status == 2
    assert "--overwrite" in err
    assert target.read_bytes() == b"mine"
    assert run(capsys, "encode", CROW, target, "--overwrite")[0] == 0
    assert target.read_bytes() != b"mine"


def test_a_sound_of_a_directory_that_is_a_timbre_is_an_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "bells" / "own.wav"
    own.parent.mkdir()
    own.write_bytes(CROW.read_bytes())
    status, _, err = run(capsys, "morph", CROW, own.parent, own, "--overwrite")
    assert status == 2
    assert "inputs are never written to" in err
    assert own.read_bytes() == CROW.read_bytes()


def test_the_side_that_content_comes_from_is_no_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUT lies in a folder of the name of that side."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "out.wav").write_bytes(b"mine")
    assert (
        run(capsys, "morph", CROW, CROW, Path("a/out.wav"), "--overwrite", "--polish", "0")[0] == 0
    )
    assert (tmp_path / "a" / "out.wav").read_bytes() != b"mine"


@pytest.mark.parametrize("command", ["info", "encode", "decode"])
@pytest.mark.parametrize("name", ["pipe", "pipe.avae"])
def test_a_pipe_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    outputs = [] if command == "info" else [tmp_path / ("out.avae", "out.wav")[command == "decode"]]
    status, _, err = run(capsys, command, tmp_path / name, *outputs)
    assert status == 1
    assert "a pipe or device" in err
    assert err.count("\n") == 1


def test_a_name_that_is_no_text_is_said_all_the_same(tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"caf\xe9.avae")
    ended = subprocess.run(
        [sys.executable, "-m", "audiovae", "encode", CROW, target, "--quality", "1"],
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\\udce9.avae: " in ended.stdout
    assert target.exists()


@pytest.mark.parametrize("start", ["inf", "0.49", "1e300"])
def test_a_range_beyond_the_end(
    start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded = tmp_path / "a.avae"
    run(capsys, "encode", CROW, coded)
    status, _, err = run(capsys, "decode", coded, tmp_path / "a.wav", "--start", start)
    assert status == 1
    assert "a time range within 0.481 s" in err
    assert not (tmp_path / "a.wav").exists()
    status, _, _ = run(capsys, "decode", coded, tmp_path / "a.wav", "--duration", "inf")
    assert status == 0
    assert probe_audio(tmp_path / "a.wav").num_samples == probe_audio(CROW).num_samples


@pytest.mark.parametrize("name", ["in.wav", "./in.wav", "link.wav", "hard.wav"])
@pytest.mark.parametrize("command", [["resynth"], ["morph", "in.wav"], ["morph", str(CROW)]])
def test_an_input_is_never_written_to(
    command: list[str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path("in.wav")
    source.write_bytes(CROW.read_bytes())
    Path("link.wav").symlink_to(source)
    Path("hard.wav").hardlink_to(source)
    status, _, err = run(capsys, *command, source, name, "--overwrite")
    assert status == 2
    assert "inputs are never written to" in err
    assert source.read_bytes() == CROW.read_bytes()


def test_info_of_audio_and_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info", CROW)
    assert status == 0
    assert "sample_rate: 44100" in out
    shipped = Path(__file__).parents[2] / "audiovae" / "pretrained" / "base.safetensors"
    status, out, _ = run(capsys, "info", shipped)
    assert status == 0
    assert "kind: vae" in out
    assert "quality 8:" in out


@pytest.mark.parametrize("arguments", [[], ["timbre"]])
def test_without_a_command_there_is_help_and_no_complaint(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert "Usage: audiovae" in out + err
    assert "error:" not in err


def test_help_answers_without_loading_torch() -> None:
    code = (
        "import sys; from audiovae.cli import main; main(['--help']); "
        "sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 0
    assert b"encode" in result.stdout
