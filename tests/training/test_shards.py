"""`audiovae.training.shards`: exact, resumable, refused when wrong, never read whole."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training import shards
from audiovae.training.data import draw_crops
from audiovae.training.shards import is_shards, load_shards, write_shards
from tests.tones import tones, write_tones

CONFIG = SpectrogramConfig()
CPU = torch.device("cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tones(tmp_path / "audio", count=4, seconds=0.5)


def index_rows(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "index.jsonl").read_text().splitlines()]


def contents(directory: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def test_shards_hold_the_log_mel_of_every_file(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    assert not is_shards(target)
    report = write_shards(source, target, CONFIG)
    assert (report.written, report.known, report.failed) == (4, 0, ())
    assert is_shards(target)
    assert index_rows(target)[1] == {
        "path": "tone_1.wav",
        "shard": "00000.npy",
        "first_frame": 44,
        "num_frames": 44,
        "sample_rate": 44_100,
        "seconds": 0.5,
    }
    corpus = load_shards(target, CONFIG)
    assert corpus.mapped
    for index in range(4):
        samples = torch.from_numpy(tones(22_050, index))[None]
        expected = log_mel_spectrogram(samples, CONFIG)[0].T.half()
        assert torch.equal(corpus.clip(index), expected)


def test_many_shards_are_one_corpus(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(source, tmp_path / "one", CONFIG)
    monkeypatch.setattr(shards, "SHARD_FRAMES", 60)
    write_shards(source, tmp_path / "many", CONFIG)
    assert len(list((tmp_path / "many" / "shards").iterdir())) == 2
    one, many = (load_shards(tmp_path / name, CONFIG) for name in ("one", "many"))
    assert one.names == many.names
    assert all(torch.equal(one.clip(i), many.clip(i)) for i in range(4))
    crops = [draw_crops(c, 6, 64, torch.Generator().manual_seed(3), CPU).data for c in (one, many)]
    assert torch.equal(*crops)


def test_a_second_run_does_nothing_and_a_new_file_is_added(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    write_shards(source, target, CONFIG)
    before = contents(target)
    assert write_shards(source, target, CONFIG).written == 0
    assert contents(target) == before
    (source / "tone_9.wav").write_bytes((source / "tone_0.wav").read_bytes())
    report = write_shards(source, target, CONFIG)
    assert (report.written, report.known) == (1, 4)
    corpus = load_shards(target, CONFIG)
    assert torch.equal(corpus.clip(4), corpus.clip(0))


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(shards, "SHARD_FRAMES", 60)
    write_shards(source, tmp_path / "whole", CONFIG)

    def kill(done: int, _total: int) -> None:
        if done == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(source, tmp_path / "killed", CONFIG, kill)
    write_shards(source, tmp_path / "killed", CONFIG)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_row_that_a_kill_cut_short_is_written_again(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    write_shards(source, target, CONFIG)
    index = target / "index.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[:-20])
    assert len(load_shards(target, CONFIG).names) == 3
    assert index.read_bytes() == whole[:-20]  # reading changes nothing
    assert write_shards(source, target, CONFIG).written == 1
    corpus = load_shards(target, CONFIG)
    assert corpus.names == tuple(f"tone_{i}.wav" for i in range(4))
    assert [row["shard"] for row in index_rows(target)] == ["00000.npy"] * 3 + ["00001.npy"]


def test_a_bad_file_leaves_no_trace_and_is_reported(source: Path, tmp_path: Path) -> None:
    whole = (source / "tone_1.wav").read_bytes()
    write_shards(source, tmp_path / "good", CONFIG)
    (source / "tone_1_cut.wav").write_bytes(whole[: len(whole) // 2])
    (source / "a_first.wav").write_bytes(b"nothing")
    report = write_shards(source, tmp_path / "shards", CONFIG)
    assert report.written == 4
    assert [line.split(":")[0].rsplit("/")[-1] for line in report.failed] == [
        "a_first.wav",
        "tone_1_cut.wav",
    ]
    assert contents(tmp_path / "shards") == contents(tmp_path / "good")


def test_only_bad_files_leave_no_shard(tmp_path: Path) -> None:
    source = tmp_path / "audio"
    source.mkdir()
    (source / "a.wav").write_bytes(b"nothing")
    assert write_shards(source, tmp_path / "shards", CONFIG).written == 0
    assert not list((tmp_path / "shards" / "shards").iterdir())
    with pytest.raises(ConfigError, match="expected shards with clips"):
        load_shards(tmp_path / "shards", CONFIG)


def test_another_spectrogram_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    write_shards(source, tmp_path / "shards", CONFIG)
    other = SpectrogramConfig(num_mels=80)
    for use in (
        lambda: load_shards(tmp_path / "shards", other),
        lambda: write_shards(source, tmp_path / "shards", other),
    ):
        with pytest.raises(ConfigError, match=r"spectrogram\.num_mels = 80, got 128"):
            use()


def _damage_description(target: Path) -> None:
    (target / "shards.json").write_text("{")


def _raise_version(target: Path) -> None:
    path = target / "shards.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))


def _lose_shard(target: Path) -> None:
    (target / "shards" / "00000.npy").unlink()


def _cut_shard(target: Path) -> None:
    path = target / "shards" / "00000.npy"
    path.write_bytes(path.read_bytes()[:5000])


def _shorten_shard(target: Path) -> None:
    np.save(target / "shards" / "00000.npy", np.zeros((90, 128), np.float16))


def _widen_shard(target: Path) -> None:
    np.save(target / "shards" / "00000.npy", np.zeros((500, 80), np.float16))


def _damage_index(target: Path) -> None:
    (target / "index.jsonl").write_text("not JSON\n")


@pytest.mark.parametrize(
    "damage",
    [
        _damage_description,
        _raise_version,
        _lose_shard,
        _cut_shard,
        _shorten_shard,
        _widen_shard,
        _damage_index,
    ],
)
def test_damage_is_one_clear_line(source: Path, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    target = tmp_path / "shards"
    write_shards(source, target, CONFIG)
    damage(target)
    with pytest.raises(ConfigError) as caught:
        load_shards(target, CONFIG)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a sparse file")
def test_crops_of_a_corpus_larger_than_memory_touch_nothing_else(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "shards"
    write_shards(source, target, CONFIG)
    frames = 1 << 30  # 256 GiB of float16, of which the disk holds next to nothing
    with (target / "shards" / "00000.npy").open("r+b") as file:
        facts = {"descr": "<f2", "fortran_order": False, "shape": (frames, 128)}
        np.lib.format.write_array_header_1_0(file, facts)
        file.truncate(file.tell() + frames * 256)
    row = index_rows(target)[0] | {"num_frames": frames}
    (target / "index.jsonl").write_text(json.dumps(row) + "\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    corpus = load_shards(target, CONFIG)
    train, validation = corpus.split()
    for step in range(3):
        crops = draw_crops(train, 8, 256, torch.Generator().manual_seed(step), CPU)
        assert crops.data.shape == (8, 256, 128)
    assert validation.clip(0)[:512].shape == (512, 128)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200_000
