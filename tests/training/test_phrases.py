"""`audiovae.training.phrases`: music that a seed brings back, inside its time and range."""

from __future__ import annotations

import numpy as np
import pytest

from audiovae.training.phrases import Note, Phrase, draw_phrase

SECONDS = 5.0


def phrases(count: int = 60) -> list[Phrase]:
    return [draw_phrase(np.random.default_rng((1, index)), SECONDS) for index in range(count)]


def test_a_seed_brings_the_phrase_back() -> None:
    assert phrases(8) == phrases(8)
    assert len({phrase.notes for phrase in phrases()}) == 60


def test_notes_are_playable_and_begin_in_time() -> None:
    for phrase in phrases():
        assert phrase.notes
        for note in phrase.notes:
            assert 0 <= note.start_seconds < SECONDS
            assert 0.05 < note.duration_seconds <= SECONDS
            assert 20 <= note.key <= 108
            assert 1 <= note.velocity <= 127


def test_there_are_single_voices_and_chords() -> None:
    single = sum(phrase.is_one_voice for phrase in phrases())
    assert 12 <= single <= 48


@pytest.mark.parametrize(("second_start", "one_voice"), [(1.0, True), (0.5, False)])
def test_one_voice_is_one_note_at_a_time(second_start: float, one_voice: bool) -> None:
    notes = (Note(second_start, 1.0, 62, 80), Note(0.0, 1.0, 60, 80))
    assert Phrase(notes, 0.0).is_one_voice == one_voice
