"""`generate`: seeded sounds of every kind, with the tiny model."""

import json
from pathlib import Path

import pytest

from audiovae.audio import probe_audio
from pipelines.generate import main, sound_seed
from tests.pipelines.measured_folders import SECONDS, write_sounds
from tests.small_models import write_tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("generate")
    write_tiny_model(place)
    write_sounds(place / "sounds", 2)
    return place


def run(place: Path, output: Path, *arguments: str | Path) -> int:
    checkpoint = place / "tiny.safetensors"
    given = ["--output-dir", output, "--checkpoint", checkpoint, *arguments]
    return main([str(one) for one in given])


def sounds(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(output.glob("*.wav"))]


def test_the_same_seed_gives_the_same_bytes_however_many(place: Path, tmp_path: Path) -> None:
    short = ("--seconds", "0.5")
    assert run(place, tmp_path / "two", "--num", "2", *short) == 0
    assert run(place, tmp_path / "three", "--num", "3", *short) == 0
    assert run(place, tmp_path / "other", "--num", "1", "--seed", "1", *short) == 0
    two, three, other = (sounds(tmp_path / name) for name in ("two", "three", "other"))
    assert two == three[:2]
    assert len(set(three)) == 3
    assert other[0] not in three
    facts = json.loads((tmp_path / "two" / "generate.json").read_text())
    assert facts["temperatures"] == [0.7] * 4
    assert (tmp_path / "two" / "generate.html").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "count", "seconds"),
    [
        (("--like", "0", "--keep", "fine:1", "--num", "2"), 2, SECONDS),
        (("--continue", "0", "--seconds", "0.4", "--num", "1"), 1, SECONDS + 0.4),
        (("--from", "0", "--to", "1", "--steps", "3", "--along", "arc"), 3, SECONDS),
    ],
)
def test_every_kind_of_sound(
    place: Path, tmp_path: Path, arguments: tuple[str, ...], count: int, seconds: float
) -> None:
    files = {"0": place / "sounds" / "000.wav", "1": place / "sounds" / "001.wav"}
    before = [path.read_bytes() for path in files.values()]
    given = [
        files[one] if flag in ("--like", "--continue", "--from", "--to") else one
        for flag, one in zip(("", *arguments), arguments, strict=False)
    ]
    assert run(place, tmp_path / "out", *given) == 0
    made = sorted((tmp_path / "out").glob("*.wav"))
    assert [probe_audio(path).duration_seconds for path in made] == pytest.approx([seconds] * count)
    assert [path.read_bytes() for path in files.values()] == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--from", "x.wav"), "give both"),
        (("--like", "a.wav", "--continue", "b.wav"), "one of --like, --continue and --from"),
        (("--temperature", "warm"), "numbers from 0 to 2"),
        (("--like", "SOUND", "--keep", "most"), "coarse:N or fine:N"),
        (("--like", "SOUND", "--seconds", "3"), "leave it out"),
        (("--keep", "coarse:1"), "--keep: expected it with --like"),
        (("--steps", "3"), "--steps: expected it with --from"),
        (("--along", "arc"), "--along: expected it with --from"),
        (("--from", "SOUND", "--to", "SOUND", "--num", "3"), "--num: expected it without --from"),
        (("--from", "SOUND", "--to", "SOUND", "--seed", "1"), "--seed: expected it without --from"),
    ],
)
def test_contradictions_are_explained(
    place: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound = str(place / "sounds" / "000.wav")
    given = [sound if one == "SOUND" else one for one in arguments]
    assert run(place, tmp_path / "out", *given) == 2
    written = capsys.readouterr().err
    assert reason in written
    assert written.count("\n") == 1


def test_an_earlier_run_is_not_replaced_unasked(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--num", "1", "--seconds", "0.3")
    assert run(place, tmp_path, *short) == 0
    assert run(place, tmp_path, *short) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(place, tmp_path, *short, "--overwrite") == 0


def test_files_of_others_and_inputs_stay(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "000.wav"
    own.write_bytes((place / "sounds" / "000.wav").read_bytes())
    assert run(place, tmp_path, "--num", "1", "--seconds", "0.3") == 2
    assert "expected one without 000.wav" in capsys.readouterr().err
    assert run(place, tmp_path, "--like", str(own), "--num", "1", "--overwrite") == 2
    assert "inputs are never written to" in capsys.readouterr().err
    assert own.read_bytes() == (place / "sounds" / "000.wav").read_bytes()


def test_a_model_that_knows_no_labels_says_so(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, tmp_path / "out", "--label", "dog") == 1
    assert "trained without labels" in capsys.readouterr().err


def test_seeds_differ() -> None:
    assert len({sound_seed(seed, index) for seed in range(20) for index in range(20)}) == 400
