"""Inputs and outputs below URIs: the same bytes as below directories, and nothing lost there."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import soundfile

from audiovae.audio import probe_audio
from audiovae.commands import UsageProblem
from audiovae.errors import AudioReadError
from pipelines import preprocess
from pipelines.runner import desk, probing, remote, remote_lock
from pipelines.runner.inputs import locate, survey
from pipelines.runner.lock import previous_root
from pipelines.runner.remote import RemoteStorage
from pipelines.runner.remote_lock import RemoteLock
from pipelines.runner.stopping import FatalProblem
from pipelines.runner.storage import LocalStorage, open_storage
from pipelines.runner.units import FileFailed
from tests.pipelines.conftest import Command
from tests.pipelines.fakes import all_contents, statuses, write_tone
from tests.shard_files import make_shards, shard_contents
from tests.tones import noise, write_tones

IN, OUT = "memory://in", "memory://out"
PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
    """An empty store, and a folder for temporary files that is empty again afterwards."""
    system = fsspec.filesystem("memory")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(remote_lock, "_SETTLE_SECONDS", 0.0)
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    deadline = time.monotonic() + PATIENCE_SECONDS  # a stopped run leaves busy threads behind
    while list(temporary.iterdir()):
        assert time.monotonic() < deadline, "temporary files stayed"
        time.sleep(0.01)


def upload(folder: Path, uri: str = IN) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{uri}/{path.relative_to(folder).as_posix()}"
            fsspec.filesystem("memory").pipe_file(name, path.read_bytes())
    return uri


def download(uri: str, folder: Path) -> Path:
    storage = RemoteStorage(uri)
    for file in storage.listing():
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        storage.fetch(file.path, folder / file.path)
    return folder


def a_mixed_folder(folder: Path) -> Path:
    """Good files, deep ones, a long one, bad ones, and no audio."""
    write_tone(folder / "long.wav", seconds=21)
    write_tone(folder / "bad noise.wav")
    write_tone(folder / "odd #1 100%?.wav", hz=550)
    (folder / "cut.wav").write_bytes((folder / "a.wav").read_bytes()[:300])
    (folder / "notes.txt").write_text("no audio")
    return folder


@pytest.mark.parametrize(
    ("source", "target"), [(IN, OUT), (IN, "local"), ("local", OUT)], ids=["both", "in", "out"]
)
def test_outputs_are_those_of_directories(
    folder: Path, tmp_path: Path, command: Command, source: str, target: str
) -> None:
    a_mixed_folder(folder)
    expected = command(folder, "--output-dir", tmp_path / "expected")
    upload(folder)
    arguments = (
        folder if source == "local" else source,
        "--output-dir",
        tmp_path / "found" if target == "local" else target,
    )
    ended = command(*arguments)
    found = tmp_path / "found" if target == "local" else download(OUT, tmp_path / "found")
    assert ended.status == expected.status == 3
    assert all_contents(found) == all_contents(tmp_path / "expected")
    assert statuses(found) == statuses(tmp_path / "expected")
    assert {path.name for path in found.iterdir()} == {
        path.name for path in (tmp_path / "expected").iterdir()
    }
    again = command(*arguments)
    assert "nothing to do" in again.out
    assert again.status == 3


def test_a_new_file_is_added(folder: Path, tmp_path: Path, command: Command) -> None:
    upload(folder)
    assert command(IN, "--output-dir", OUT).status == 0
    write_tone(folder / "new.wav", hz=880)
    upload(folder)
    assert "done: 3 files" in command(IN, "--output-dir", OUT).out  # all have new times
    assert sorted(statuses(download(OUT, tmp_path / "found"))) == ["a.wav", "deep/b.wav", "new.wav"]


def test_what_a_killed_run_did_is_known_from_its_journal(
    folder: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_mixed_folder(folder)
    command(folder, "--output-dir", tmp_path / "expected")
    upload(folder)
    with monkeypatch.context() as killed:  # neither the books nor the lock are brought in order
        killed.setattr(desk.RemoteBooks, "publish", lambda self: None)
        killed.setattr(RemoteLock, "__exit__", lambda self, *_: self._ended.set())
        command(IN, "--output-dir", OUT)
    assert not RemoteStorage(OUT).exists("manifest.jsonl")
    refused = command(IN, "--output-dir", OUT)
    assert refused.status == 1
    assert "is writing there" in refused.err
    monkeypatch.setattr(remote_lock, "ABANDONED_AFTER_SECONDS", 0.0)
    assert command(IN, "--output-dir", OUT).status == 3
    found = download(OUT, tmp_path / "found")
    assert all_contents(found) == all_contents(tmp_path / "expected")
    assert statuses(found) == statuses(tmp_path / "expected")
    assert not (found / ".audiovae_journal").exists()


def test_a_file_that_is_not_ours_is_not_replaced(
    folder: Path, command: Command, memory: fsspec.AbstractFileSystem
) -> None:
    upload(folder)
    memory.pipe_file(f"{OUT}/a.wav.avae", b"precious")
    ended = command(IN, "--output-dir", OUT)
    assert ended.status == 3
    assert "OutputExists" in ended.err
    assert memory.cat_file(f"{OUT}/a.wav.avae") == b"precious"


def test_a_dry_run_writes_nothing(
    folder: Path, command: Command, memory: fsspec.AbstractFileSystem
) -> None:
    upload(folder)
    before = set(memory.store)
    ended = command(IN, "--output-dir", OUT, "--dry-run")
    assert "would do 2 files" in ended.out
    assert set(memory.store) == before


def test_uris_of_a_pattern_and_of_a_file(folder: Path) -> None:
    upload(folder)
    out = open_storage(OUT)

    def paths(uri: str) -> list[str]:
        return [entry.path for entry in survey(locate(uri), out)]

    assert paths(IN) == paths(f"{IN}/") == ["a.wav", "deep/b.wav"]
    assert paths(f"{IN}/*.wav") == ["a.wav"]
    assert paths(f"{IN}/**/*.wav") == ["a.wav", "deep/b.wav"]
    assert paths(f"{IN}/deep/b.wav") == ["b.wav"]
    assert locate(f"{IN}/deep").default_output == f"{IN}/deep_audiovae"
    with pytest.raises(UsageProblem, match="expected audio files, found none"):
        paths("memory://nowhere")


def test_own_and_other_outputs_and_hidden_files_are_no_inputs(
    folder: Path, memory: fsspec.AbstractFileSystem
) -> None:
    upload(folder)
    for name in ("out/old.wav", "other/old.wav", "other/.audiovae.lock", ".x/c.wav", ".d.wav"):
        memory.pipe_file(f"{IN}/{name}", b"?")
    found = survey(locate(IN), open_storage(f"{IN}/out"))
    assert [entry.path for entry in found] == ["a.wav", "deep/b.wav", "other"]
    assert found[2].harmless
    for source in (IN, f"{IN}/deep"):
        with pytest.raises(UsageProblem, match="does not contain the input"):
            survey(locate(source), open_storage(IN))


def test_file_uris_are_paths(folder: Path) -> None:
    assert open_storage(f"file://{folder}") == LocalStorage(folder)
    assert locate(f"file://{folder}") == locate(str(folder))
    with_space = folder.parent / "a b"
    assert open_storage(f"file://{folder.parent}/a%20b") == LocalStorage(with_space)
    with pytest.raises(UsageProblem, match="absolute"):
        open_storage("file://in/here")


def test_unknown_and_missing_schemes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageProblem, match="check the spelling"):
        open_storage("s4://bucket")
    with pytest.raises(UsageProblem, match="with a place in it"):
        open_storage("memory://")

    def filesystem(scheme: str, **_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    remote._file_system.cache_clear()
    monkeypatch.setattr(fsspec, "filesystem", filesystem)
    with pytest.raises(UsageProblem, match=r"pip install -e '.\[s3\]'"):
        open_storage("s3://bucket")
    remote._file_system.cache_clear()


def test_ray_is_refused_what_is_in_memory(folder: Path, command: Command) -> None:
    upload(folder)
    ended = command(IN, "--output-dir", OUT, "--executor", "ray")
    assert ended.status == 2
    assert "--executor local with memory://" in ended.err


def test_a_lock_keeps_others_out_until_it_is_given_back() -> None:
    storage = RemoteStorage(OUT)
    with RemoteLock(storage, "first"):
        with pytest.raises(FatalProblem, match="expected to be the only run"):
            RemoteLock(storage, "second").__enter__()
    assert previous_root(storage) == "first"
    with RemoteLock(storage, "second"):
        assert previous_root(storage) == "second"


def test_a_lock_of_a_dead_process_or_of_long_ago_is_nobodys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = RemoteStorage(OUT)
    now = time.time()
    here = remote_lock._this_host()
    for holder, is_held in (
        ({"host": "elsewhere", "pid": 1, "renewed": now}, True),
        ({"host": "elsewhere", "pid": 1, "renewed": now - 300}, False),
        ({"host": here, "pid": 2**22 + 1, "renewed": now}, False),
    ):
        storage.write_text(".audiovae.lock", json.dumps(holder))
        if is_held:
            with pytest.raises(FatalProblem, match="process 1 on elsewhere"):
                RemoteLock(storage, "x").__enter__()
        else:
            with RemoteLock(storage, "x"):
                pass


def test_a_run_that_lost_its_lock_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_lock, "RENEW_EVERY_SECONDS", 0.01)
    storage = RemoteStorage(OUT)
    with RemoteLock(storage, "x") as lock:
        lock.require()
        thief = json.dumps({"id": "other", "host": "h", "pid": 7})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not lock._taken_by and time.monotonic() < deadline:
            storage.write_text(".audiovae.lock", thief)  # again: a renewal may have crossed it
            time.sleep(0.05)
        with pytest.raises(FatalProblem, match="process 7 on h has taken over"):
            lock.require()
    assert json.loads(storage.read_text(".audiovae.lock") or "")["id"] == "other"


@pytest.mark.parametrize(
    ("name", "ends_suffice"), [("a.wav", True), ("a.flac", True), ("a.mp3", False)]
)
def test_of_a_large_file_only_what_is_needed_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends_suffice: bool
) -> None:
    monkeypatch.setattr(probing, "_WHOLE_BELOW_BYTES", 100_000)
    monkeypatch.setattr(probing, "_HEAD_BYTES", 60_000)
    monkeypatch.setattr(probing, "_TAIL_BYTES", 20_000)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / name, noise(600_000).numpy(), 44_100)
    upload(tmp_path / "in")
    fetched: list[str] = []
    original = RemoteStorage.fetch
    monkeypatch.setattr(
        RemoteStorage,
        "fetch",
        lambda self, path, copy: fetched.append(path) or original(self, path, copy),
    )
    [entry] = survey(locate(IN), open_storage(OUT))
    facts = probing.look_into(entry, RemoteStorage(IN), with_compressed=False)
    assert facts == probe_audio(tmp_path / "in" / name)
    assert fetched == ([] if ends_suffice else [name])


def test_a_file_that_goes_away_is_its_own_row(folder: Path) -> None:
    upload(folder)
    [first, *_] = survey(locate(IN), open_storage(OUT))
    fsspec.filesystem("memory").rm_file(f"{IN}/a.wav")
    facts = probing.look_into(first, RemoteStorage(IN), with_compressed=False)
    assert isinstance(facts, FileFailed)
    assert facts.retry
    with pytest.raises(AudioReadError, match="expected a file to download"):
        with RemoteStorage(IN).local_copy("a.wav"):
            pass


def test_times_tell_two_contents_of_one_second_apart() -> None:
    facts = {"LastModified": "2026-01-02T03:04:05Z", "ETag": "a"}
    first, second = remote._modified_ns(facts), remote._modified_ns({**facts, "ETag": "b"})
    assert first != second
    assert first // 10**9 == second // 10**9 == 1_767_323_045


def test_shards_are_those_of_directories(tmp_path: Path) -> None:
    source = write_tones(tmp_path / "audio", count=3, seconds=0.5)
    (source / "bad.wav").write_bytes(b"no audio")
    upload(source)
    arguments = [IN, "--output-dir", OUT, "--with-audio", "--deduplicate", "--workers", "2"]
    assert preprocess.main(arguments) == 3
    found = shard_contents(download(OUT, tmp_path / "found"))
    make_shards(source, tmp_path / "expected", with_audio=True, deduplicate=True)
    expected = shard_contents(tmp_path / "expected")
    assert found.keys() == expected.keys()
    arrays = [name for name in found if name.endswith(".npy")]
    assert [found[name] for name in arrays] == [expected[name] for name in arrays]
    assert preprocess.main(arguments) == 3
    assert shard_contents(download(OUT, tmp_path / "again")) == found
