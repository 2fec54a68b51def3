"""`embed`: vectors, a map that works in a browser, and queries, with the tiny model."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from audiovae.commands import UsageProblem
from pipelines.embed import main
from pipelines.mapping.collection import Collection, load_collection
from pipelines.mapping.page import MapFacts, write_map_page
from tests.pipelines.headless import document
from tests.pipelines.measured_folders import write_sounds
from tests.small_models import write_tiny_model

MANY = 10_000
FLUID_MILLISECONDS = 250.0  # a software-rendered frame on a busy machine


def run(place: Path, *more: str) -> int:
    checkpoint = place / "models" / "tiny.safetensors"
    arguments = [str(place / "sounds"), "--checkpoint", str(checkpoint)]
    return main([*arguments, "--executor", "local", "--workers", "1", *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("embed")
    write_tiny_model(place / "models")
    write_sounds(place / "sounds" / "tones", 4)
    write_sounds(place / "sounds" / "noisy", 4, noise=0.5, first=10)
    assert run(place) == 0
    return place


def test_both_files_hold_the_same(made: Path) -> None:
    collection = load_collection(made / "sounds_map")
    table = parquet.read_table(made / "sounds_map" / "embeddings.parquet")
    assert table["file"].to_pylist() == list(collection.names)
    assert collection.labels == ("noisy",) * 4 + ("tones",) * 4
    stored = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(stored, collection.vectors)
    assert np.isfinite(stored).all()


def test_a_clip_is_nearest_to_itself(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    clip = made / "sounds" / "noisy" / "011.wav"
    assert main(["query", str(made / "sounds_map"), str(clip), "--top", "3"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0][1:] == ["noisy/011.wav", "noisy"]
    assert float(lines[0][0]) < 0.01
    assert len(lines) == 3


def test_a_query_needs_a_collection(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(made / "sounds"), str(made)]) == 2
    assert "run python -m pipelines.embed first" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04 and no more"])
def test_damaged_embeddings_are_one_line_of_ours(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "embeddings.npz").write_bytes(data)
    with pytest.raises(UsageProblem, match="got a damaged file; remove it") as caught:
        load_collection(tmp_path)
    assert "pickle" not in str(caught.value)


def test_new_files_are_added(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_model(tmp_path / "models")
    write_sounds(tmp_path / "sounds", 3)
    assert run(tmp_path, "--link-sound") == 0
    vectors = {p: p.stat().st_mtime_ns for p in (tmp_path / "sounds_map").rglob("*.embedding.npz")}
    page = (tmp_path / "sounds_map" / "map.html").read_bytes()
    assert run(tmp_path, "--link-sound") == 0
    assert (tmp_path / "sounds_map" / "map.html").read_bytes() == page
    write_sounds(tmp_path / "sounds", 1, first=7)
    assert run(tmp_path, "--link-sound") == 0
    assert len(load_collection(tmp_path / "sounds_map")) == 4
    assert vectors == {path: path.stat().st_mtime_ns for path in vectors}


def test_a_chosen_clip_names_its_like_in_a_browser(made: Path, tmp_path: Path) -> None:
    page = made / "sounds_map" / "map.html"
    shown = document(page, "#clip=tones/001.wav&search=noisy", profile=tmp_path)
    assert '<h2 id="chosen-name">tones/001.wav</h2>' in shown
    similar = shown[shown.index('id="similar"') : shown.index("<audio")]
    assert similar.count("<li") == 7  # all the others
    assert "tones/001.wav" not in similar
    assert '<span id="found" class="label" style="margin:0">4 found</span>' in shown
    assert "data:audio/ogg;base64," in page.read_text(encoding="utf-8")


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    names = ("</script><script>document.title='broken'</script>.wav", "b'\"&.wav", "c\n.wav")
    page = write_map_page(tmp_path, *collection_of(names), MapFacts("<b>x</b>", 0, False))
    shown = document(page, profile=tmp_path / "profile")
    assert "<title>broken" not in shown
    assert "<b>x</b>" not in shown


PROBE = """<script>
const frames = [], looks = [];
const timed = (times, act) => {
  const from = performance.now();
  act();
  times.push(performance.now() - from);
};
for (let step = 0; step < 20; step++) {
  offsetX += 3;
  timed(frames, () => { draw(); pen.getImageData(0, 0, 1, 1); });  // so that it is painted too
  timed(looks, () => clipAt(300 + step, 300));
}
document.body.dataset.frameMs = Math.min(...frames);
document.body.dataset.lookMs = Math.min(...looks);
</script></body>"""


@pytest.mark.slow
def test_ten_thousand_clips_stay_fluid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec  # UMAP takes a minute: PCA
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "umap" else find(name)
    )
    names = tuple(f"folder{i % 20}/clip{i:05d}.wav" for i in range(MANY))
    page = write_map_page(tmp_path, *collection_of(names), MapFacts("many", 0, False))
    assert page.stat().st_size < 40e6
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    shown = document(page, "#search=clip00", profile=tmp_path / "profile", real_time=True)
    assert ">1,000 found<" in shown
    times = {name: float(time) for name, time in re.findall(r'data-(\w+)-ms="([\d.]+)"', shown)}
    assert 0 < times["frame"] < FLUID_MILLISECONDS
    assert times["look"] < FLUID_MILLISECONDS / 10


def collection_of(names: tuple[str, ...]) -> tuple[Collection, np.ndarray]:
    random = np.random.default_rng(0)
    labels = tuple(name.partition("/")[0] for name in names)
    vectors = random.standard_normal((len(names), 8)).astype(np.float32)
    pictures = random.integers(0, 255, (len(names), 32, 64)).astype(np.uint8)
    seconds = np.ones(len(names))
    return Collection(names, labels, vectors, seconds, Path("/sounds"), "base", "0"), pictures


def test_embed_leaves_a_page_of_something_else_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sounds").mkdir()
    page = tmp_path / "other" / "map.html"
    page.parent.mkdir()
    page.write_text("mine")
    assert main([str(tmp_path / "sounds"), "--output-dir", str(page.parent)]) == 2
    assert "with map.html of something else" in capsys.readouterr().err
    assert page.read_text() == "mine"


def test_another_collection_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "models")
    write_sounds(tmp_path / "sounds", 3)
    assert run(tmp_path) == 0
    write_sounds(tmp_path / "others", 2, noise=0.5)  # of the same names
    arguments = [str(tmp_path / "others"), "--output-dir", str(tmp_path / "sounds_map")]
    arguments += ["--checkpoint", str(tmp_path / "models" / "tiny.safetensors")]
    before = load_collection(tmp_path / "sounds_map")
    assert main([*arguments, "--executor", "local", "--workers", "1"]) == 0
    after = load_collection(tmp_path / "sounds_map")
    assert len(after) == 2
    assert not np.array_equal(after.vectors, before.vectors[:2])
