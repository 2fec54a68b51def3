"""`python -m pipelines.train`: from audio or shards to a model, whatever happens on the way."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from audiovae.checkpoint import load_checkpoint, load_vae
from audiovae.training import loop
from pipelines import preprocess, train
from pipelines.training.memory import memory_explained
from pipelines.training_display import TrainingDisplay
from tests.pipelines.conftest import Ended
from tests.tones import write_tones

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
name = "test"
quality = {quality}
[vae]
width = 16
expansion = 2
head_blocks = 0
levels = [
    {{ stride = 4, groups = 1, channels = 4, encoder_blocks = 0, decoder_blocks = 1 }},
    {{ stride = 8, groups = 1, channels = 4, encoder_blocks = 0, decoder_blocks = 1 }},
]
[bottleneck]
kind = "{bottleneck}"
[vocoder]
width = 8
num_blocks = 1
[training]
batch_size = 4
crop_frames = 64
log_every_steps = 1
validate_every_steps = 7
checkpoint_every_seconds = 0.001
"""

Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("audio"), count=3)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "test.toml"
    path.write_text(CONFIG.format(quality="{}", bottleneck="quantized"))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process."""

    def call(*arguments: str | Path, main: Callable[[list[str]], int] = train.main) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Ended(status, written.out, written.err)

    return call


def command(config: Path, data: Path, output_dir: Path, *more: str | Path) -> list[str]:
    given = ["--config", config, "--data", data, "--output-dir", output_dir, "--device", "cpu"]
    return [str(argument) for argument in [*given, *more]]


def losses(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in r.items() if k not in ("seconds", "steps_per_second")} for r in rows]


def problem_of(ended: Ended, status: int) -> str:
    assert ended.status == status
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    return ended.err


def test_audio_to_a_model(run: Run, config: Path, audio: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"
    ended = run(*command(config, audio, target, "--steps", "3", "--licence", "CC0", "--seed", "7"))
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("decoded_files=3/3")
    assert lines[1].startswith("config=test parameters=")
    assert lines[-2].startswith("validation step=3 kbps_lambda_1=")
    assert lines[-1].startswith("done steps=3 ")
    checkpoint = load_checkpoint(target / "model.safetensors")
    assert checkpoint.provenance.licence == "CC0"
    assert checkpoint.provenance.seed == 7
    assert checkpoint.provenance.data.endswith(": 3 files, 0.00 h")
    load_vae(checkpoint, "test")
    assert (target / "samples" / "step_0000003.png").is_file()


@pytest.mark.slow
def test_a_run_killed_with_9_resumes_to_the_same_curve(
    run: Run, config: Path, audio: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    steps = 14
    assert run(*command(config, audio, whole, "--steps", str(steps))).status == 0
    arguments = command(config, audio, killed, "--steps", str(steps))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.train", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.DEVNULL,
    )
    metrics = killed / "metrics.csv"
    while process.poll() is None:
        if metrics.is_file() and metrics.read_text().count("\n") > 4:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL
    assert 3 <= len(losses(killed)) < steps
    assert run(*arguments, "--resume").status == 0
    assert losses(killed) == losses(whole)
    names = ("networks", "averages", "optimisers")
    states = [torch.load(d / "state.pt", weights_only=True) for d in (whole, killed)]
    for name in names:
        assert repr(states[0][name]) == repr(states[1][name])
    models = [load_checkpoint(d / "model.safetensors").tensors for d in (whole, killed)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    for name in ("validation.csv", "config.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()


def test_a_stopped_run_says_how_to_go_on(
    run: Run, config: Path, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._Run.advance

    def interrupt(self: loop._Run) -> None:
        step(self)
        if self.state.progress.step == 4:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop._Run, "advance", interrupt)
    arguments = command(config, audio, tmp_path / "run", "--steps", "6", "--seed", "3")
    ended = run(*arguments)
    assert "stopped at step 4; run the same command with --resume" in problem_of(ended, 130)
    assert run(*arguments, "--resume").status == 0
    assert len(losses(tmp_path / "run")) == 6


def test_a_gaussian_config_without_quality(run: Run, audio: Path, tmp_path: Path) -> None:
    path = tmp_path / "gaussian.toml"
    path.write_text(CONFIG.format(quality="false", bottleneck="gaussian"))
    ended = run(*command(path, audio, tmp_path / "run", "--steps", "2"))
    assert (ended.status, ended.err) == (0, "")
    assert "validation step=2 kbps=" in ended.out


def test_shards_train_a_vae_and_with_audio_a_vocoder(
    run: Run, config: Path, audio: Path, tmp_path: Path
) -> None:
    shards, sound = tmp_path / "shards", tmp_path / "sound"
    ended = run(audio, "--output-dir", shards, main=preprocess.main)
    assert ended.status == 0
    assert "written=3 known=0" in ended.out
    assert run(*command(config, shards, tmp_path / "run", "--steps", "2")).status == 0
    model = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert model.provenance.data == "shards: 3 files, 0.00 h"
    config.write_text('kind = "vocoder"\n' + config.read_text().replace("= 64", "= 8"))
    assert "--with-audio" in problem_of(run(*command(config, shards, tmp_path / "voc")), 1)
    assert run(audio, "--output-dir", sound, "--with-audio", main=preprocess.main).status == 0
    ended = run(*command(config, sound, tmp_path / "voc", "--steps", "2"))
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("clip", range(3))  # one of them is held back
def test_rot_in_a_shard_is_found_where_it_is_read(
    run: Run, config: Path, audio: Path, tmp_path: Path, clip: int
) -> None:
    shards = tmp_path / "shards"
    assert run(audio, "--output-dir", shards, main=preprocess.main).status == 0
    with (shards / "shards" / "00000.npy").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size * (2 * clip + 1) // 6 // 2 * 2)
        file.write(b"\xff\x7f" * 64)  # not a number
    problem = problem_of(run(*command(config, shards, tmp_path / "run", "--steps", "1")), 1)
    assert f"'tone_{clip}.wav': its shard is damaged" in problem


def test_lost_waveforms_are_no_matter_of_the_kind_of_model(
    run: Run, config: Path, audio: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    assert run(audio, "--output-dir", shards, "--with-audio", main=preprocess.main).status == 0
    (shards / "waveforms" / "00000.npy").write_bytes(b"")
    problem = problem_of(run(*command(config, shards, tmp_path / "run", "--steps", "1")), 1)
    assert "waveforms/00000.npy: expected a whole shard" in problem


def test_a_vocoder(run: Run, config: Path, audio: Path, tmp_path: Path) -> None:
    config.write_text('kind = "vocoder"\n' + config.read_text().replace("= 64", "= 8"))
    ended = run(*command(config, audio, tmp_path / "run", "--steps", "2"))
    assert (ended.status, ended.err) == (0, "")
    assert "mel_distance=" in ended.out


def test_another_config_cannot_resume_a_run(
    run: Run, config: Path, audio: Path, tmp_path: Path
) -> None:
    target = tmp_path / "run"
    arguments = command(config, audio, target, "--steps", "1")
    assert run(*arguments).status == 0
    config.write_text(config.read_text().replace("width = 16", "width = 32"))
    assert "vae.width was 16, now it is 32" in problem_of(run(*arguments, "--resume"), 1)


def test_wrong_usage_is_one_line_each(run: Run, config: Path, audio: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"
    start = command(config, audio, target, "--steps", "1")
    assert "found no state.pt" in problem_of(run(*start, "--resume"), 2)
    assert run(*start).status == 0
    assert "add --resume" in problem_of(run(*start), 2)
    assert "that of the run, 0, got 5" in problem_of(run(*start, "--resume", "--seed", "5"), 2)
    assert "Usage" not in problem_of(run("--config", str(config)), 2)
    ended = run(*start, "--resume")
    assert ended.status == 0
    assert len(losses(target)) == 1
    missing = problem_of(run(*command(tmp_path / "no.toml", audio, tmp_path / "x")), 1)
    assert "no.toml" in missing


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("vae.width=abc", "--set: vae.width: "),
        ("vae=1", "--set: vae: must be a table of settings, got 1"),
        ("vae.wdth=8", "--set: unknown key 'vae.wdth'; did you mean 'width'?"),
        ("training.batch_size=true", "--set: training.batch_size: must not be true or false"),
        ("training.crop_frames=65", "--set: training.crop_frames must be a multiple"),
        ("width", "--set: expected a setting like"),
    ],
)
def test_a_wrong_setting_is_wrong_usage(
    run: Run, config: Path, audio: Path, tmp_path: Path, setting: str, said: str
) -> None:
    arguments = command(config, audio, tmp_path / "run", "--set", setting)
    assert said in problem_of(run(*arguments), 2)
    config.write_text(config.read_text().replace("width = 16", "wdth = 16"))
    assert "test.toml: unknown key 'vae.wdth'" in problem_of(run(*arguments), 1)


@pytest.mark.parametrize(
    "setting", ["vae.width=1000000000", "vae.width=1e14", "training.batch_size=1000000000"]
)
def test_too_little_memory_is_one_line(
    run: Run, config: Path, audio: Path, tmp_path: Path, setting: str
) -> None:
    arguments = command(config, audio, tmp_path / "run", "--steps", "1", "--set", setting)
    assert "lower vae.width" in problem_of(run(*arguments), 1)


def test_other_errors_of_torch_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), memory_explained():
        torch.zeros(2) + torch.zeros(3)


def test_data_that_cannot_be_trained_on_is_one_line(run: Run, config: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    missing = problem_of(run(*command(config, empty, tmp_path / "run")), 1)
    assert "expected a directory of audio" in missing
    empty.mkdir()
    assert "found none" in problem_of(run(*command(config, empty, tmp_path / "run")), 1)
    (empty / "shards.json").write_text("{}")
    assert "damaged" in problem_of(run(*command(config, empty, tmp_path / "run")), 1)


def test_two_runs_in_one_directory_are_refused(
    run: Run, config: Path, audio: Path, tmp_path: Path
) -> None:
    from pipelines.runner.lock import OutputLock

    with OutputLock(tmp_path / "run", audio):
        ended = run(*command(config, audio, tmp_path / "run", "--steps", "1"))
    assert "expected to be the only run" in problem_of(ended, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said(run: Run, config: Path, audio: Path, tmp_path: Path) -> None:
    arguments = command(config, audio, tmp_path / "run")
    ended = run(*arguments[:-1], "cuda")
    assert "expected a CUDA device" in problem_of(ended, 2)


@pytest.mark.parametrize("main", [train.main, preprocess.main])
def test_help_has_an_example(run: Run, main: Callable[[list[str]], int]) -> None:
    ended = run("--help", main=main)
    assert ended.status == 0
    assert "Example:" in ended.out


def test_the_display_writes_a_line_when_one_is_due() -> None:
    import io

    from audiovae.training.state import Progress

    now = [0.0]
    stream = io.StringIO()
    display = TrainingDisplay(lambda: now[0] > 11, stream, clock=lambda: now[0])
    progress = Progress(step=10, seconds=20.0, fraction=0.25, training_metrics={"loss": 0.5})
    with display:
        for seconds in (1.0, 6.0, 7.0, 12.0):
            now[0] = seconds
            display.stepped(progress)
        assert display.wants_stop()
        progress.skipped = 2
        now[0] = 18.0
        display.stepped(progress)
        result = loop.Validation(
            {"kbps_lambda_1": 1.5, "kbps_1.3Hz_lambda_1": 0.1}, ["level x has collapsed"]
        )
        display.validated(10, result)
    lines = stream.getvalue().splitlines()
    expected = "step=10 done=25.0% left=1m00s steps_per_second=0.00 loss=0.5"
    assert lines[:3] == [expected, expected, expected + " skipped=2"]
    assert lines[3:] == ["validation step=10 kbps_lambda_1=1.5", "warning: level x has collapsed"]
