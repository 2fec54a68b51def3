"""`python -m pipelines.evaluate` from files to tables, with tiny models."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import audiovae
from audiovae.analysis.metrics import Distances, measure
from audiovae.audio import Clip, read_audio, write_audio
from audiovae.commands import Interrupted, UsageProblem
from pipelines.evaluate import main, parse_qualities
from pipelines.evaluation import bench
from pipelines.evaluation.bench import Bench, Row
from pipelines.evaluation.clips import ClipFile, find_clips
from pipelines.evaluation.opus import OPUS_KBPS, OpusEncoder, OpusError
from pipelines.evaluation.plot import rate_distortion_png
from pipelines.evaluation.tables import csv_text, mean_rows, report, table
from tests.small_models import write_tiny_model

RATE = 44_100
SECONDS = 0.8
PNG_MAGIC = b"\x89PNG"
RESULTS = ["evaluation.csv", "evaluation.md", "rate_distortion.png"]


def write_tone(path: Path, hz: float = 440, channels: int = 1, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(SECONDS * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(1, channels + 1)[:, None] * time)
    write_audio(path, Clip(tone.astype(np.float32), rate))


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str
    results: Path

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.results / "evaluation.csv").open(newline="") as file:
            return list(csv.DictReader(file))


Evaluate = Callable[..., Ended]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def evaluate(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Evaluate:
    """The command on `tmp_path / "clips"`, with one worker and without ViSQOL."""

    def run(*arguments: str) -> Ended:
        vae, vocoder = models
        results = tmp_path / "clips_evaluation"
        options = [f"--data={tmp_path / 'clips'}", f"--checkpoint={vae}", f"--vocoder={vocoder}"]
        capsys.readouterr()
        status = main([*options, "--device=cpu", "--no-visqol", *arguments])
        written = capsys.readouterr()
        return Ended(status, written.out, written.err, results)

    return run


@pytest.fixture
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.usefixtures("no_tools")
def test_a_folder_becomes_a_table(
    evaluate: Evaluate,
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_tone(tmp_path / "clips" / "speech" / "a.wav")
    write_tone(tmp_path / "clips" / "music" / "b.flac", hz=660, channels=2, rate=48_000)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    ended = evaluate("--qualities", "2,7", "--workers", "2")
    assert ended.status == 0, ended.err
    assert sorted(path.name for path in ended.results.iterdir()) == RESULTS
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(p.name for p in (tmp_path / "clips").rglob("*.*")) == ["a.wav", "b.flac"]
    assert (ended.results / "rate_distortion.png").read_bytes().startswith(PNG_MAGIC)
    systems = [(row["file"], row["class"], row["system"], row["setting"]) for row in ended.rows]
    assert systems == [
        (name, kind, system, setting)
        for name, kind in (("music/b.flac", "music"), ("speech/a.wav", "speech"))
        for system, setting in (
            (bench.MODEL, "2"),
            (bench.MODEL_GRIFFIN_LIM, "2"),
            (bench.MODEL, "7"),
            (bench.MODEL_GRIFFIN_LIM, "7"),
            (bench.COPY_SYNTHESIS, ""),
            (bench.GRIFFIN_LIM, ""),
        )
    ]
    text = (ended.results / "evaluation.md").read_text()
    assert "## All: 2 clips, 2 s" in text
    assert "## music: 1 clip, 1 s" in text
    assert "## speech: 1 clip, 1 s" in text
    assert "no Opus rows: opusenc (of opus-tools) is not on PATH" in text
    assert "no Opus rows" in ended.out
    assert "| copy synthesis" in ended.out
    assert "clips=2/2" in ended.out
    assert str(tmp_path) not in text
    _rows_are_those_of_the_library(ended.rows, models, tmp_path)


def _rows_are_those_of_the_library(
    rows: list[dict[str, str]], models: tuple[Path, Path], tmp_path: Path
) -> None:
    """True bytes, and the distances of what `decompress` gives."""
    row = next(row for row in rows if row["file"] == "speech/a.wav" and row["setting"] == "7")
    model = audiovae.load_model(models[0], vocoder=models[1])
    clip = read_audio(tmp_path / "clips" / "speech" / "a.wav")
    data = audiovae.compress(clip, model, quality=7)
    assert int(row["bytes"]) == len(data)
    assert float(row["kbps"]) == pytest.approx(len(data) * 8 / 1000 / SECONDS, rel=1e-4)
    sound = audiovae.decompress(data, model).waveform
    expected = measure(
        torch.from_numpy(sound), torch.from_numpy(clip.waveform), RATE, with_visqol=False
    )
    assert float(row["mel_distance"]) == pytest.approx(expected.mel_distance, rel=1e-3)
    assert float(row["short"]) == pytest.approx(expected.short, rel=1e-3)
    assert float(row["decoded_log_mel_db"]) > 0


@pytest.mark.usefixtures("no_tools")
def test_a_bad_file_is_named_and_the_others_are_measured(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    write_tone(tmp_path / "clips" / "good.wav")
    (tmp_path / "clips" / "bad.wav").write_bytes(b"RIFF, but no more")
    ended = evaluate("--qualities=1", "--vocoder=none")
    assert ended.status == 3
    assert ended.err.count("\n") == 1
    assert "bad.wav" in ended.err
    assert "done clips=1 failed=1" in ended.out
    assert {row["file"] for row in ended.rows} == {"good.wav"}
    # Without a vocoder Griffin-Lim sounds both.
    assert [row["system"] for row in ended.rows] == [bench.MODEL_GRIFFIN_LIM, bench.GRIFFIN_LIM]
    assert ended.rows[0]["class"] == "clips"


@pytest.mark.usefixtures("no_tools")
def test_nothing_readable_is_fatal_and_leaves_nothing(evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "bad.wav").write_bytes(b"")
    ended = evaluate()
    assert ended.status == 1
    assert not ended.results.exists()


def test_wrong_usage_is_said_before_any_work(evaluate: Evaluate, tmp_path: Path) -> None:
    assert evaluate().status == 2  # no directory
    (tmp_path / "clips").mkdir()
    assert "found none" in evaluate().err
    write_tone(tmp_path / "clips" / "a.wav")
    assert "expected steps from 1 to 8" in evaluate("--qualities=0-3").err
    assert "--samples: expected it with --family" in evaluate("--samples=3").err
    (tmp_path / "clips_evaluation").mkdir()
    (tmp_path / "clips_evaluation" / "evaluation.md").write_text("mine")
    ended = evaluate()
    assert ended.status == 2
    assert "--overwrite" in ended.err
    assert (ended.results / "evaluation.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "steps"),
    [("1-8", tuple(range(1, 9))), ("6", (6,)), ("4, 2,2", (2, 4)), ("1-2,8", (1, 2, 8))],
)
def test_qualities(text: str, steps: tuple[int, ...]) -> None:
    assert parse_qualities(text) == steps


@pytest.mark.parametrize("text", ["", "9", "3-1", "a", "1-", "1,,2", "12"])
def test_qualities_that_are_none(text: str) -> None:
    with pytest.raises(UsageProblem):
        parse_qualities(text)


def test_class_is_the_manifests_else_the_folders(tmp_path: Path) -> None:
    for name in ("top.wav", "drums/kick.wav", "drums/voice.wav", ".hidden.wav", ".cache/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "drums" / "notes.txt").write_text("no audio")
    (tmp_path / "drums" / "manifest.csv").write_text("file,source,class\nvoice.wav,x,Speech\n")
    clips = find_clips(tmp_path)
    assert [(clip.name, clip.kind, clip.is_speech) for clip in clips] == [
        ("drums/kick.wav", "drums", False),
        ("drums/voice.wav", "Speech", True),
        ("top.wav", tmp_path.name, False),
    ]


def test_a_manifest_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "manifest.csv").write_text("name,kind\na.wav,drums\n")
    with pytest.raises(UsageProblem, match="expected the columns file and class, got name, kind"):
        find_clips(tmp_path)


def row(
    name: str, kind: str, system: str, setting: int | None, mel: float, num_bytes: int | None = None
) -> Row:
    pesq = 2.0 + mel if kind == "speech" else None
    distances = Distances(mel, mel / 2, 1.0, 1.0, None, None, None, pesq)
    return Row(ClipFile(Path(name), name, kind), system, setting, 2.0, num_bytes, None, distances)


ROWS = [
    row("a", "speech", bench.OPUS, 12, 1.0, 3000),
    row("b", "music", bench.OPUS, 12, 3.0, 5000),
    row("a", "speech", bench.OPUS, 6, 4.0, 1500),
    row("a", "speech", bench.COPY_SYNTHESIS, None, 0.5),
    row("b", "music", bench.MODEL, 3, 1.5, 500),
]


def test_means_are_over_clips_and_in_order() -> None:
    means = mean_rows(ROWS)
    assert [mean.title for mean in means] == [
        "audiovae, quality 3",
        "copy synthesis",
        "opus, 6 kbps",
        "opus, 12 kbps",
    ]
    last = means[-1]
    assert last.clips == 2
    assert last.figures["kbps"] == pytest.approx((12.0 + 20.0) / 2)
    assert last.figures["mel_distance"] == pytest.approx(2.0)
    assert last.figures["short"] == pytest.approx(1.0)
    assert last.figures["pesq_wb"] == pytest.approx(3.0)  # of the speech clip alone
    assert means[0].figures["pesq_wb"] is None
    assert means[1].figures["kbps"] is None


def test_tables_leave_out_what_nobody_has() -> None:
    text = table(mean_rows(ROWS))
    header, rule, *lines = text.splitlines()
    assert "ViSQOL" not in header
    assert "SI-SDR" not in header
    assert "PESQ-WB" in header
    assert len({len(line) for line in (header, rule, *lines)}) == 1
    assert [cell.strip() for cell in lines[-1].split("|")[1:4]] == [
        "opus, 12 kbps",
        "16.00",
        "2.000",
    ]
    whole = report(ROWS, ["a fact"])
    assert "- a fact\n" in whole
    assert "## music: 1 clip, 2 s" in whole
    assert "## speech" not in report(ROWS[4:], [])  # one class is all there is


def test_every_row_is_in_the_csv() -> None:
    lines = list(csv.DictReader(csv_text(ROWS).splitlines()))
    assert len(lines) == len(ROWS)
    assert lines[0]["kbps"] == "12"
    assert lines[0]["visqol"] == ""
    assert lines[3]["bytes"] == ""


def test_the_picture_needs_neither_opus_nor_a_vocoder() -> None:
    for rows in (ROWS, ROWS[:3], ROWS[4:]):
        assert rate_distortion_png(mean_rows(rows), "title").startswith(PNG_MAGIC)


def test_a_stop_is_obeyed_after_a_row(models: tuple[Path, Path], tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav")
    model = audiovae.load_model(models[0], vocoder=models[1])
    stopped = Bench(model, (1,), None, None, with_visqol=False, is_stopped=lambda: True)
    with pytest.raises(Interrupted):
        stopped.run(find_clips(tmp_path)[0])


def test_opus_that_fails_is_an_error_of_one_line(tmp_path: Path) -> None:
    command = tmp_path / "opusenc"
    command.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    os.chmod(command, 0o755)
    clip = Clip(np.zeros((1, RATE), np.float32), RATE)
    with pytest.raises(OpusError, match="opusenc at 6 kbps failed: broken"):
        OpusEncoder(str(command)).transcode(clip, 6)


@pytest.mark.skipif(OpusEncoder.find() is None, reason="opusenc is not installed")
@pytest.mark.parametrize("channels", [1, 2])
def test_opus_comes_back_in_place_and_more_bits_come_nearer(channels: int, tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", channels=channels)
    clip = read_audio(tmp_path / "a.wav")
    encoder = OpusEncoder.find()
    assert encoder is not None
    sizes, errors = [], []
    for kbps in OPUS_KBPS:
        size, sound = encoder.transcode(clip, kbps)
        assert sound.shape == clip.waveform.shape
        sizes.append(size)
        errors.append(float(np.square(sound - clip.waveform).mean()))
    assert sizes == sorted(sizes)
    assert errors[-1] < 0.01 * float(np.square(clip.waveform).mean())
    assert errors[-1] < errors[0]
