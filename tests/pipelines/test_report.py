from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from pipelines.report import relative_url, select, write_report
from pipelines.runner.recipe import Recipe
from pipelines.runner.storage import LocalStorage
from pipelines.runner.summary import RunFacts, add_up
from pipelines.spectrogram_image import frequency_ticks, image_pair
from tests.pipelines.fakes import write_tone

RECIPE = Recipe(("resynthesize",), "base", "w" * 16, 6, "wav")
HOSTILE = "<img src=x onerror=alert(1)> \"'&amp;\n\u202e\udcff {{ 7*7 }}.wav"
ROW_SHARE = 2 / 128  # of the height: one mel band up or down


def ok(path: str, distance: float | None = 2.0) -> dict[str, Any]:
    return {
        "path": path,
        "status": "ok",
        "size": 1000,
        "seconds": 0.5,
        "sample_rate": 8000,
        "num_channels": 1,
        "estimated_kbps": 2.8,
        "kbps": None,
        "log_mel_l1_db": distance,
        "note": "",
        "outputs": [{"product": "resynthesize", "path": f"{path}.resynth.wav", "size": 900}],
    }


def error(path: str, reason: str = "noise") -> dict[str, Any]:
    return {"path": path, "status": "error", "error": "NotAudioError", "reason": reason}


def render(tmp_path: Path, rows: list[dict[str, Any]], title: str = "in") -> str:
    facts = RunFacts("local", "cpu", 2, "base", "id", len(rows), 10.0, 4.0, {"decode": 1.0})
    (tmp_path / "out").mkdir(exist_ok=True)
    places = (LocalStorage(tmp_path / "in"), LocalStorage(tmp_path / "out"))
    page = write_report(
        tmp_path / "out", title, places, RECIPE, lambda: iter(rows), add_up(rows), facts
    )
    return page.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects tags and attributes; a tag that a file name opened would show up."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_a_file_has_two_pictures_and_two_players(tmp_path: Path) -> None:
    write_tone(tmp_path / "in" / "x" / "a.wav", 0.5)
    write_tone(tmp_path / "out" / "x" / "a.wav.resynth.wav", 0.5)
    tags = Tags(render(tmp_path, [ok("x/a.wav")]))
    pictures = [tag["src"] for tag in tags.all("img")]
    assert len(pictures) == 2
    assert all(str(source).startswith("data:image/png;base64,") for source in pictures)
    assert [tag["src"] for tag in tags.all("audio")] == [
        "../in/x/a.wav",
        "x/a.wav.resynth.wav",
    ]


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_tone(tmp_path / "in" / "a.wav", 0.5)
    write_tone(tmp_path / "out" / "a.wav.resynth.wav", 0.5)
    page = render(tmp_path, [ok("a.wav"), error("b.wav")])
    tags = Tags(page)
    assert tags.all("link") == []
    assert not any("src" in tag for tag in tags.all("script"))
    assert not re.search(r"(https?:)?//[a-z]", page.split("<script>")[0])


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    rows = [ok(HOSTILE), error(HOSTILE + "2", reason="<script>alert(2)</script>")]
    page = render(tmp_path, rows, title=HOSTILE)
    tags = Tags(page)
    assert tags.all("img") == []  # neither an injected one nor a picture: the file is not there
    assert len(tags.all("script")) == 1
    assert "{{ 7*7 }}" in page
    page.encode("utf-8")


def test_urls_lead_back_to_the_very_bytes(tmp_path: Path) -> None:
    url = relative_url(tmp_path / "in" / HOSTILE, tmp_path / "out")
    assert re.fullmatch(r"[A-Za-z0-9_.~/%-]+", url)
    assert unquote_to_bytes(url) == b"../in/" + HOSTILE.encode("utf-8", "surrogateescape")


def test_missing_figures_and_pictures_do_not_stop_the_page(tmp_path: Path) -> None:
    row = ok("gone.wav", distance=None) | {"estimated_kbps": None, "seconds": 0.0}
    assert "No picture" in render(tmp_path, [row])


def test_errors_only(tmp_path: Path) -> None:
    page = render(tmp_path, [error("a.wav", "expected audio, got noise")])
    assert "expected audio, got noise" in page
    assert "Filter by name" not in page


def test_few_files_are_all_shown_in_order() -> None:
    rows = [ok(f"{index:03d}", distance=index) for index in range(200)]
    chosen = select(rows)
    assert list(chosen.files) == rows
    assert chosen.is_complete


def test_of_many_files_the_worst_and_a_sample_are_shown() -> None:
    rows = [ok(f"{index:05d}", distance=index % 997) for index in range(5000)]
    chosen = select(rows)
    distances = [row["log_mel_l1_db"] for row in chosen.files]
    assert len(chosen.files) == 200
    assert not chosen.is_complete
    assert sorted(distances)[-100:] == sorted(row["log_mel_l1_db"] for row in rows)[-100:]
    assert [row["path"] for row in chosen.files] == sorted(row["path"] for row in chosen.files)
    assert np.mean(sorted(distances)[:100]) == pytest.approx(498, abs=120)  # 4 standard errors
    assert select(rows) == chosen


def test_errors_are_capped_and_counted(tmp_path: Path) -> None:
    rows = [error(f"{index}.wav") for index in range(700)]
    assert len(select(rows).errors) == 500
    assert "the first 500 of 700" in render(tmp_path, rows)


def test_a_tone_shines_at_its_place_in_both_pictures(tmp_path: Path) -> None:
    """The picture is upright, and the labels of the axis fit it."""
    tone = write_tone(tmp_path / "tone.wav", 0.5, hz=1000)
    pair = image_pair(tone, tone)
    assert pair.source == pair.output
    assert pair.seconds == 0.5
    data = base64.b64decode(pair.source.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)
    brightest = 1 - (pixels.mean(axis=1).argmax() + 0.5) / pixels.shape[0]
    tick = next(tick for tick in frequency_ticks() if tick.label == "1k")
    assert brightest == pytest.approx(tick.percent / 100, abs=ROW_SHARE)


def test_both_pictures_share_the_scale_of_the_source(tmp_path: Path) -> None:
    loud = write_tone(tmp_path / "loud.wav", 0.5)
    silent = write_tone(tmp_path / "silent.wav", 0.5, hz=0)
    pair = image_pair(loud, silent)
    data = base64.b64decode(pair.output.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert pixels.max() <= 4  # all at the dark end
