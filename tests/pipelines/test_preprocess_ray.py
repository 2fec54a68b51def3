"""`python -m pipelines.preprocess --executor ray`: the same bytes, and deadly files are blamed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audiovae.training.shard_writer import ShardWriter
from pipelines.preprocessing import run, shard_plan
from pipelines.preprocessing.shard_worker import ClipStored, ShardMaker, ShardPlace, ShardTask
from pipelines.runner.units import FileFailed
from tests.shard_files import json_lines, make_shards, shard_contents
from tests.tones import write_tones


class HostilePlace(ShardPlace):
    """A place where a file can kill its worker."""

    __slots__ = ()

    def open(self) -> ShardMaker:
        return HostileMaker(self)


class HostileMaker(ShardMaker):
    """Dies of files named `deadly`, and once of `startled`."""

    def _add(self, writer: ShardWriter, task: ShardTask) -> ClipStored | FileFailed:
        if "deadly" in task.path:
            os._exit(1)
        directory = self._place.source.directory
        if "startled" in task.path and directory is not None:
            mark = directory.parent / "mark"
            if not mark.exists():
                mark.touch()
                os._exit(1)
        return super()._add(writer, task)


@pytest.mark.ray
def test_workers_that_die_cost_nothing_but_the_files_that_kill_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_plan, "_MIN_SHARD_FRAMES", 60)
    source = write_tones(tmp_path / "audio", count=5, seconds=0.5)
    (source / "tone_4.wav").rename(source / "startled.wav")
    make_shards(source, tmp_path / "local", with_audio=True)
    whole = (source / "tone_0.wav").read_bytes()
    (source / "zz_deadly.wav").write_bytes(whole)
    monkeypatch.setattr(run, "ShardPlace", HostilePlace)
    report = make_shards(source, tmp_path / "ray", with_audio=True, executor="ray")
    assert (report.written, [path for path, _ in report.failed]) == (5, ["zz_deadly.wav"])
    [row] = json_lines(tmp_path / "ray" / "left_out.jsonl")
    assert (row["path"], row["error"], row["retry"]) == ("zz_deadly.wav", "WorkerDied", True)
    local, ray = shard_contents(tmp_path / "local"), shard_contents(tmp_path / "ray")
    del ray["left_out.jsonl"]
    assert ray == local
