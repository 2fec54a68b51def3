"""`batch_transform --to-timbre` with a tiny model: a whole folder in another timbre."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audiovae import pretrained
from audiovae.audio import write_audio
from pipelines.batch_transform import main
from pipelines.runner.timbre_choice import TimbreChoice
from tests.pipelines.conftest import Ended
from tests.pipelines.fakes import contents, rows, statuses
from tests.pipelines.test_recipe import RECIPE
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("to_timbre") / "in"
    (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(("a.wav", "deep/b.flac", "deep/c.wav")):
        write_audio(folder / name, tones(9_000 + 5_000 * index, index)[None], 22_050)
    write_audio(folder.parent / "bell d'or.wav", tones(12_000, 9)[None], 44_100)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], folder: Path) -> object:
    def start(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        status = main([str(folder), "--polish", "0", *(str(argument) for argument in arguments)])
        written = capsys.readouterr()
        return Ended(status, written.out, written.err)

    return start


def choice(amount: float = 1.0, data: str = "eA==") -> TimbreChoice:
    return TimbreChoice("bell", amount, keep_loudness=False, data=data)


def test_the_key_changes_with_the_vector_and_the_amount() -> None:
    from dataclasses import replace

    keys = {
        replace(RECIPE, timbre=timbre).key
        for timbre in (None, choice(), choice(0.5), choice(data="eQ=="))
    }
    assert len(keys) == 4


def test_outputs_are_called_by_the_timbre(run, folder: Path, tmp_path: Path) -> None:
    target = folder.parent / "bell d'or.wav"
    (folder / "old.avae").write_bytes((next(Path("tests/golden").rglob("*.avae"))).read_bytes())
    try:
        ended = run("--to-timbre", target, "--output-dir", tmp_path)
    finally:
        (folder / "old.avae").unlink()
    assert ended.status == 0
    names = {"a.wav", "deep/b.flac", "deep/c.wav"}
    assert set(contents(tmp_path, "*.wav")) == {f"{name}.bell_d_or.wav" for name in names}
    assert statuses(tmp_path) == dict.fromkeys(sorted(names), "ok") | {"old.avae": "skipped"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "to bell_d_or, amount 1" in page
    assert page.count("<img src=") == 6
    assert "difference" not in page.partition("<footer>")[0].partition("<article")[2]
    for row in rows(tmp_path):  # meant to differ, and the bits are not all that is kept
        assert row.get("estimated_kbps") is None
        assert row.get("log_mel_l1_db") is None
    recipe = json.loads((tmp_path / "summary.json").read_text())["recipe"]
    assert recipe["timbre"]["name"] == "bell_d_or"


def test_amount_0_is_the_plain_resynthesis(run, folder: Path, tmp_path: Path) -> None:
    target = folder.parent / "bell d'or.wav"
    plain = ("--do", "resynthesize", "--checkpoint", "timbre", "--output-dir", tmp_path / "p")
    assert run(*plain).status == 0
    for amount in ("0", "0.5", "1"):
        output = tmp_path / amount
        run("--to-timbre", target, "--amount", amount, "--output-dir", output)
    expected = list(contents(tmp_path / "p", "*.wav").values())
    assert list(contents(tmp_path / "0", "*.wav").values()) == expected
    half, whole = (list(contents(tmp_path / a, "*.wav").values()) for a in ("0.5", "1"))
    assert all(len({*three}) == 3 for three in zip(expected, half, whole, strict=True))


def test_a_rerun_does_nothing_and_workers_change_nothing(run, folder: Path, tmp_path: Path) -> None:
    target = folder.parent / "bell d'or.wav"
    for workers in ("1", "2"):
        arguments = ("--to-timbre", target, "--workers", workers, "--keep-loudness")
        run(*arguments, "--output-dir", tmp_path / workers)
        again = run(*arguments, "--output-dir", tmp_path / workers)
        assert again.out == "nothing to do: 3 files are done\n"
    assert contents(tmp_path / "1", "*.wav") == contents(tmp_path / "2", "*.wav")
    changed = run("--to-timbre", target, "--amount", "0.9", "--output-dir", tmp_path / "2")
    assert "done: 3 files" in changed.out


def test_a_directory_or_a_saved_timbre_is_a_target(run, folder: Path, tmp_path: Path) -> None:
    from audiovae.cli import main as audiovae

    library = tmp_path / "library"
    assert audiovae(["timbre", "save", "low", str(folder / "deep"), "--library", str(library)]) == 0
    by_name = ("--to-timbre", "low", "--library", library, "--output-dir", tmp_path / "1")
    assert run(*by_name).status == 0
    assert run("--to-timbre", folder / "deep", "--output-dir", tmp_path / "2").status == 0
    by_file = ("--to-timbre", library / "low.timbre", "--output-dir", tmp_path / "3")
    assert run(*by_file).status == 0
    wholes = [list(contents(tmp_path / n, "*.wav").values()) for n in ("1", "2", "3")]
    assert wholes[0] == wholes[1] == wholes[2]
    assert rows(tmp_path / "1")[0]["outputs"][0]["path"] == "a.wav.low.wav"


def test_a_rerun_to_a_saved_timbre_needs_no_torch(
    run, models: Path, folder: Path, tmp_path: Path
) -> None:
    from audiovae.cli import main as audiovae

    library = tmp_path / "library"
    audiovae(["timbre", "save", "low", str(folder / "a.wav"), "--library", str(library)])
    by_name = ("--to-timbre", "low", "--library", library, "--output-dir", tmp_path / "out")
    run(*by_name)
    code = (
        "import sys; from pathlib import Path; from audiovae import pretrained;"
        "pretrained.PRETRAINED_DIR = Path(sys.argv.pop(1));"
        "from pipelines.batch_transform import main;"
        "status = main(sys.argv[1:]); sys.exit(status or 7 * ('torch' in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, models, folder, "--polish", "0", *map(str, by_name)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "nothing to do: 3 files are done\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["--to-timbre", "bell.wav", "--do", "compress"],
            2,
            "--do: expected it without --to-timbre",
        ),
        (["--to-timbre", "bell.wav", "--kbps", "3"], 2, "--kbps: expected it without --to-timbre"),
        (["--to-timbre", "nowhere.wav"], 1, "nowhere.wav: expected"),
        (["--to-timbre", "nobody"], 1, "nobody: expected an audio file"),
        (["--to-timbre", "nobody", "--checkpoint", "big"], 2, "shipped models (timbre, vocoder)"),
        (["--amount", "0.5"], 2, "--amount: expected it with --to-timbre"),
    ],
)
def test_wrong_usage_is_one_line(
    run, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    ended = run(*arguments, "--output-dir", tmp_path / "out")
    assert ended.status == status
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
