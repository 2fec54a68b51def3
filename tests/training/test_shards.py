"""`audiovae.training.shards` and `shard_writer`: exact, refused when wrong, never read whole."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiovae.errors import AudioReadError, ConfigError
from audiovae.spectrogram import log_mel_spectrogram, num_frames
from audiovae.training import data
from audiovae.training.crops import draw_crops
from audiovae.training.data import load_waveforms
from audiovae.training.shard_index import ClipPart, is_shards
from audiovae.training.shard_writer import ShardWriter
from audiovae.training.shards import load_shard_waveforms, load_shards
from tests.shard_files import CONFIG, json_lines, make_shards
from tests.tones import tones, write_tones

CPU = torch.device("cpu")
HOP = CONFIG.hop_samples


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tones(tmp_path / "audio", count=4, seconds=0.5)


def whole(path: Path, samples: int) -> ClipPart:
    frames = num_frames(samples, CONFIG)
    return ClipPart(path.name, path.stat().st_size, 0, frames, 0, frames)


def test_shards_hold_the_log_mel_and_the_sound_of_every_file(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    assert not is_shards(target)
    make_shards(source, target, with_audio=True)
    assert is_shards(target)
    log_mels, sounds = load_shards(target, CONFIG), load_shard_waveforms(target, CONFIG)
    in_memory = load_waveforms(source, CONFIG.sample_rate)
    assert log_mels.mapped
    assert sounds.mapped
    assert log_mels.names == sounds.names == in_memory.names
    for index in range(4):
        samples = torch.from_numpy(tones(22_050, index))[None]
        expected = log_mel_spectrogram(samples, CONFIG)[0].T.half()
        assert torch.equal(log_mels.clip(index), expected)
        assert torch.equal(sounds.clip(index), in_memory.clip(index))


def test_a_row_says_where_a_clip_lies(source: Path, tmp_path: Path) -> None:
    make_shards(source, tmp_path / "shards")
    facts = (source / "tone_1.wav").stat()
    assert json_lines(tmp_path / "shards" / "index.jsonl")[1] == {
        "path": "tone_1.wav",
        "shard": "00000.npy",
        "first_frame": 44,
        "num_frames": 44,
        "sample_rate": 44_100,
        "seconds": 0.5,
        "source_frame": 0,
        "file_frames": 44,
        "num_samples": 22_050,
        "size": facts.st_size,
        "mtime_ns": facts.st_mtime_ns,
        "sha256": "",
    }


def test_parts_of_a_long_file_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_PIECE_FRAMES", 20)
    samples = np.stack([tones(100_000, 1), tones(100_000, 2)], axis=1)
    file = tmp_path / "long.flac"
    soundfile.write(file, samples, 32_000)
    total = num_frames(-(-100_000 * 441 // 320), CONFIG)
    one = ClipPart("long.flac", 0, 0, total, 0, total)
    cuts = [(0, 100), (100, 77), (177, total - 177)]
    with ShardWriter("a", tmp_path / "a.npy", tmp_path / "aw.npy", CONFIG) as writer:
        writer.add(file, one)
    with ShardWriter("b", tmp_path / "b.npy", tmp_path / "bw.npy", CONFIG) as writer:
        rows = [writer.add(file, ClipPart("l", 0, 0, total, at, n)) for at, n in cuts]
    for name in ("{}.npy", "{}w.npy"):
        arrays = [np.load(tmp_path / name.format(which)) for which in "ab"]
        assert len(arrays[0]) == total
        np.testing.assert_array_equal(*arrays)
    assert [row.first_frame for row in rows] == [0, 100, 177]
    assert sum(row.num_samples for row in rows) == -(-100_000 * 441 // 320)


def test_a_clip_shorter_than_a_window(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "click.wav", np.array([0.5, -0.25]), 44_100)
    make_shards(tmp_path / "audio", tmp_path / "shards", with_audio=True)
    assert load_shards(tmp_path / "shards", CONFIG).lengths.tolist() == [4]
    sound = load_shard_waveforms(tmp_path / "shards", CONFIG).clip(0)
    assert sound.tolist() == [16_384, -8_192]


def test_a_bad_file_leaves_no_trace_in_a_shard(source: Path, tmp_path: Path) -> None:
    good = source / "tone_0.wav"
    half = source / "half.wav"
    half.write_bytes(good.read_bytes()[:30_000])
    with ShardWriter("a", tmp_path / "a.npy", tmp_path / "w.npy", CONFIG) as writer:
        writer.add(good, whole(good, 22_050))
        with pytest.raises(AudioReadError):
            writer.add(half, whole(half, 22_050))
        with pytest.raises(AudioReadError, match="as its header said"):
            writer.add(good, whole(good, 44_100))
        row = writer.add(good, whole(good, 22_050))
    assert row.first_frame == 44
    for name in ("a.npy", "w.npy"):
        array = np.load(tmp_path / name)
        np.testing.assert_array_equal(array[:44], array[44:])


def test_a_file_that_breaks_in_the_middle_leaves_no_trace(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_PIECE_FRAMES", 10)
    samples = tones(22_050, 0)
    samples[15_000] = np.nan
    soundfile.write(source / "nan.wav", samples, 44_100, subtype="FLOAT")
    with ShardWriter("a", tmp_path / "a.npy", tmp_path / "w.npy", CONFIG) as writer:
        with pytest.raises(AudioReadError, match="NaN"):
            writer.add(source / "nan.wav", whole(source / "nan.wav", 22_050))
    assert len(np.load(tmp_path / "a.npy")) == len(np.load(tmp_path / "w.npy")) == 0


def test_crops_from_shards_are_those_of_the_clips_in_memory(source: Path, tmp_path: Path) -> None:
    make_shards(source, tmp_path / "shards", with_audio=True)
    mapped = load_shard_waveforms(tmp_path / "shards", CONFIG)
    in_memory = load_waveforms(source, CONFIG.sample_rate)
    first, second = (
        draw_crops(corpus, 6, 5000, torch.Generator().manual_seed(3), CPU).data
        for corpus in (mapped, in_memory)
    )
    assert torch.equal(first, second)


def test_shards_without_waveforms_say_so(source: Path, tmp_path: Path) -> None:
    make_shards(source, tmp_path / "shards")
    assert not (tmp_path / "shards" / "waveforms").exists()
    with pytest.raises(ConfigError, match="--with-audio"):
        load_shard_waveforms(tmp_path / "shards", CONFIG)


def test_version_1_is_still_read(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "shards"
    make_shards(source, target)
    expected = load_shards(target, CONFIG)
    description = target / "shards.json"
    text = description.read_text().replace('"version": 2', '"version": 1')
    description.write_text(text.replace(' "with_audio": false,\n', ""))
    index = target / "index.jsonl"
    names = ("path", "shard", "first_frame", "num_frames", "sample_rate", "seconds")
    rows = [{name: row[name] for name in names} for row in json_lines(index)]
    torn = json.dumps(rows[0])[:30]  # as version 1 was left by a kill
    index.write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    found = load_shards(target, CONFIG)
    assert found.names == expected.names
    assert all(torch.equal(found.clip(i), expected.clip(i)) for i in range(4))
    assert make_shards(source, target).known == 4
    assert '"version": 2' in description.read_text()


def test_no_clips_is_one_clear_line(source: Path, tmp_path: Path) -> None:
    make_shards(source, tmp_path / "shards")
    (tmp_path / "shards" / "index.jsonl").unlink()
    with pytest.raises(ConfigError, match="expected shards with clips"):
        load_shards(tmp_path / "shards", CONFIG)


def _damage_description(target: Path) -> None:
    (target / "shards.json").write_text("{")


def _raise_version(target: Path) -> None:
    path = target / "shards.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 9'))


def _change_spectrogram(target: Path) -> None:
    path = target / "shards.json"
    path.write_text(path.read_text().replace('"num_mels": 128', '"num_mels": 80'))


def _lose_shard(target: Path) -> None:
    (target / "shards" / "00000.npy").unlink()


def _cut_shard(target: Path) -> None:
    path = target / "shards" / "00000.npy"
    path.write_bytes(path.read_bytes()[:5000])


def _empty_shard(target: Path) -> None:
    (target / "shards" / "00000.npy").write_bytes(b"")


def _fill_shard_with_something_else(target: Path) -> None:
    path = target / "shards" / "00000.npy"
    path.write_bytes(b"PK\x03\x04" + bytes(path.stat().st_size - 4))


def _lose_waveforms(target: Path) -> None:
    (target / "waveforms" / "00000.npy").unlink()


def _cut_waveforms(target: Path) -> None:
    path = target / "waveforms" / "00000.npy"
    os.truncate(path, path.stat().st_size - 10)


def _shorten_shard(target: Path) -> None:
    np.save(target / "shards" / "00000.npy", np.zeros((90, 128), np.float16))


def _widen_shard(target: Path) -> None:
    np.save(target / "shards" / "00000.npy", np.zeros((500, 80), np.float16))


def _damage_index(target: Path) -> None:
    (target / "index.jsonl").write_text("not JSON\n")


def _change_index(target: Path, **facts: object) -> None:
    rows = json_lines(target / "index.jsonl")
    lines = (json.dumps(row) + "\n" for row in [rows[0] | facts, *rows[1:]])
    (target / "index.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    "damage",
    [
        _damage_description,
        _raise_version,
        _change_spectrogram,
        _lose_shard,
        _cut_shard,
        _empty_shard,
        _fill_shard_with_something_else,
        _lose_waveforms,
        _cut_waveforms,
        _shorten_shard,
        _widen_shard,
        _damage_index,
        partial(_change_index, first_frame=140),
        partial(_change_index, first_frame=-1),
        partial(_change_index, num_frames=0),
        partial(_change_index, num_frames=1.5),
        partial(_change_index, num_samples=1 << 40),
        partial(_change_index, num_samples=None),
        partial(_change_index, shard="../../x.npy"),
        partial(_change_index, shard=7),
        partial(_change_index, colour="red"),
    ],
)
def test_damage_is_one_clear_line(
    source: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    target = tmp_path / "shards"
    make_shards(source, target, with_audio=True)
    damage(target)
    with pytest.raises(ConfigError) as caught:
        load_shards(target, CONFIG)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert not any(word in message for word in ("pickle", "__init__", "Expecting"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a sparse file")
def test_crops_of_a_corpus_larger_than_memory_touch_nothing_else(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "shards"
    make_shards(source, target)
    frames = 1 << 30  # 256 GiB of float16, of which the disk holds next to nothing
    with (target / "shards" / "00000.npy").open("r+b") as file:
        facts = {"descr": "<f2", "fortran_order": False, "shape": (frames, 128)}
        np.lib.format.write_array_header_1_0(file, facts)
        file.truncate(file.tell() + frames * 256)
    row = json_lines(target / "index.jsonl")[0] | {"num_frames": frames}
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
