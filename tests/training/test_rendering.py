"""`audiovae.training.synthesizer` and `pipelines.render_phrases`: instruments to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiovae.audio import read_audio
from audiovae.training.phrases import Note, Phrase
from audiovae.training.synthesizer import Patch, draw_patch, play
from pipelines.render_phrases import main
from tests.soundfonts import write_soundfont

RATE = 44_100
A4 = Phrase((Note(0.0, 1.0, 69, 127),), 0.0)


def patch(ratios: list[float], decay: float = 0.0) -> Patch:
    count = len(ratios)
    return Patch(np.array(ratios), np.ones(count), np.full(count, decay), 0.001, 0.05)


def spectrum(sound: np.ndarray) -> np.ndarray:
    """Of the first half second: 2 Hz a bin."""
    half = sound[: RATE // 2]
    return np.abs(np.fft.rfft(half * np.hanning(len(half))))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_partials_lie_where_the_key_and_their_ratios_say() -> None:
    found = spectrum(play(A4, patch([1.0, 2.756]), 2 * RATE, RATE, generator()))
    loudest = sorted(2 * int(k) for k in np.argsort(found)[-6:])
    assert all(min(abs(hz - 440), abs(hz - 1213)) <= 4 for hz in loudest)
    assert min(loudest) < 500 < max(loudest)


def test_partials_above_the_audible_are_left_out() -> None:
    """100 kHz would alias to 11.8 kHz."""
    found = spectrum(play(A4, patch([1.0, 100_000 / 440]), 2 * RATE, RATE, generator()))
    assert found[5000:7000].max() < 1e-3 * found.max()


@pytest.mark.parametrize(("decay", "low_db", "high_db"), [(0.0, -1, 1), (1.0, -31, -29)])
def test_a_note_falls_as_its_decay_says(decay: float, low_db: float, high_db: float) -> None:
    sound = play(A4, patch([1.0], decay), 2 * RATE, RATE, generator())
    early, late = (float(np.abs(sound[at : at + 2000]).max()) for at in (4410, 26_460))
    assert low_db < 20 * np.log10(late / early) < high_db


def test_a_note_ends_after_its_release() -> None:
    sound = play(A4, patch([1.0]), 2 * RATE, RATE, generator())
    assert np.abs(sound[int(1.1 * RATE) :]).max() < 1e-4 * np.abs(sound).max()


def test_patches_are_many_and_finite_and_a_seed_brings_them_back() -> None:
    sounds = [play(A4, draw_patch(generator(seed)), RATE, RATE, generator(seed))
              for seed in range(30)]  # fmt: skip
    peaks = [float(np.abs(sound).max()) for sound in sounds]
    assert all(0.03 < peak <= 1.0 for peak in peaks)
    again = play(A4, draw_patch(generator(3)), RATE, RATE, generator(3))
    assert np.array_equal(sounds[3], again)
    shapes = {tuple(np.argsort(spectrum(sound))[-4:]) for sound in sounds}
    assert len(shapes) > 15


def test_the_command_writes_what_is_missing_and_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path), "--minutes", "0.2", "--seed", "5"]
    assert main(arguments) == 0
    assert "written=2" in capsys.readouterr().out
    first, second = sorted(tmp_path.iterdir())
    clip, kept = read_audio(first), second.read_bytes()
    assert (clip.sample_rate, clip.duration_seconds) == (RATE, 8.0)
    assert np.abs(clip.waveform).max() > 0.02
    second.unlink()
    stamp = first.stat().st_mtime_ns
    assert main(arguments) == 0
    assert "written=1" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == stamp
    assert second.read_bytes() == kept


def test_some_phrases_are_played_far_up(tmp_path: Path) -> None:
    """Above the highest key of a piano, where a note has few partials left, but not too high."""
    assert main([str(tmp_path), "--minutes", "4", "--seed", "1"]) == 0
    loudest = []
    for path in sorted(tmp_path.iterdir()):
        sound = read_audio(path).waveform[0]
        loudest.append(np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound))
    assert 2 <= sum(hz > 4186 for hz in loudest) <= len(loudest) / 2
    assert max(loudest) < 20_000


def test_notes_are_cut_where_they_begin(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--notes", "--minutes", "0.3", "--seed", "2"]) == 0
    paths = sorted(tmp_path.iterdir())
    clips = [read_audio(path) for path in paths]
    seconds = [clip.duration_seconds for clip in clips]
    assert paths[0].name == "synthesizer_notes_2_00000.flac"
    assert sum(seconds[:-1]) < 18 <= sum(seconds) + 0.01
    assert 0.07 < min(seconds) < 0.5 < max(seconds) < 3.01
    for clip in clips:
        peak = np.abs(clip.waveform).max()
        assert np.abs(clip.waveform[0, :3]).max() > 0.009 * peak


def test_a_soundfont_plays_or_is_said_to_be_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tinysoundfont")
    soundfont = write_soundfont(tmp_path / "small.sf2")
    out = tmp_path / "out"
    assert main([str(out), "--soundfont", str(soundfont), "--minutes", "0.1"]) == 0
    (path,) = out.iterdir()
    assert path.name == "small_0_00000.flac"
    assert np.abs(read_audio(path).waveform).max() > 0.01
    capsys.readouterr()
    (tmp_path / "wrong.sf2").write_bytes(b"no soundfont")
    assert main([str(out), "--soundfont", str(tmp_path / "wrong.sf2")]) != 0
    message = capsys.readouterr().err
    assert "expected a soundfont" in message
    assert "Traceback" not in message
