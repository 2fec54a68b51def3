"""Pairs to learn timbre from: what is played, kept, and drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.config import ModelConfig
from audiovae.errors import AudioReadError, ConfigError
from audiovae.models.timbre import at_reference_level
from audiovae.spectrogram import log_mel_to_db
from audiovae.training.instruments import (
    Instrument,
    Layer,
    SoundfontPlayer,
    draw_electronic,
    draw_instrument,
)
from audiovae.training.pair_batches import PairDraw
from audiovae.training.pairs import Pairs, PairSets, build_pairs
from audiovae.training.phrases import Note, Phrase
from audiovae.training.synthesizer import Patch
from tests.models.test_timbre import timbre_config
from tests.soundfonts import write_soundfont

pytest.importorskip("tinysoundfont")

RATE = 44_100
A4 = Phrase((Note(0.05, 0.5, 69, 100),), 0.0)
TABLE = {
    "phrases": 4,
    "players": 4,
    "made_up_instruments": 3,
    "electronic_instruments": 2,
    "frames": 64,
    "validation_phrases": 2,
    "validation_players": 2,
}


def config() -> ModelConfig:
    made = timbre_config()
    pairs = made.pairs.model_copy(update=TABLE)
    training = made.training.model_copy(update={"crop_frames": 32})
    return made.model_copy(update={"pairs": pairs, "training": training})


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soundfont(tmp_path_factory.mktemp("soundfont") / "test.sf2")


@pytest.fixture(scope="module")
def player(soundfont: Path) -> SoundfontPlayer:
    return SoundfontPlayer(soundfont, RATE)


@pytest.fixture(scope="module")
def sets(soundfont: Path, tmp_path_factory: pytest.TempPathFactory) -> PairSets:
    return build_pairs(soundfont, tmp_path_factory.mktemp("run"), config())


def loudest_hz(sound: np.ndarray) -> float:  # type: ignore[type-arg]
    spectrum = np.abs(np.fft.rfft(sound[:RATE]))
    return float(spectrum.argmax())


def test_an_instrument_keeps_pitch_whatever_it_is_made_of(player: SoundfontPlayer) -> None:
    plain = player.play(A4, Instrument((Layer(40),)), RATE)
    borrowed = player.play(A4, Instrument((Layer(40, borrowed_semitones=5),)), RATE)
    tuned = player.play(replace(A4, tuning_semitones=1.0), Instrument((Layer(40),)), RATE)
    assert loudest_hz(plain) == pytest.approx(440, rel=0.01)
    assert loudest_hz(borrowed) == pytest.approx(440, rel=0.01)
    assert loudest_hz(tuned) == pytest.approx(440 * 2 ** (1 / 12), rel=0.01)


def test_a_patch_is_an_instrument_like_others(player: SoundfontPlayer) -> None:
    sine = Patch(np.ones(1), np.ones(1), np.zeros(1), attack_seconds=0.01, release_seconds=0.05)
    played = player.play(A4, Instrument((sine,)), RATE)
    assert loudest_hz(played) == pytest.approx(440, rel=0.01)
    assert np.abs(played[: round(0.04 * RATE)]).max() == 0
    breathy = Instrument((replace(sine, breath=0.05),), seed=3)
    assert np.array_equal(player.play(A4, breathy, RATE), player.play(A4, breathy, RATE))
    other = player.play(A4, replace(breathy, seed=4), RATE)
    assert not np.array_equal(player.play(A4, breathy, RATE), other)


def test_all_instruments_are_equally_loud(player: SoundfontPlayer) -> None:
    draw = np.random.default_rng(3)
    made_up = [draw_instrument(draw, player.programs) for _ in range(6)]
    for instrument in (*made_up, *(draw_electronic(draw) for _ in range(6))):
        sound = player.play(A4, instrument, RATE)
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.05, rel=1e-3)
        assert np.isfinite(sound).all()


def test_envelopes_and_rooms_do_what_they_say(player: SoundfontPlayer) -> None:
    def level(instrument: Instrument, start: float, stop: float) -> float:
        sound = player.play(A4, instrument, RATE)
        return float(np.abs(sound[round(start * RATE) : round(stop * RATE)]).max())

    layer = (Layer(0),)
    decaying = Instrument(layer, decay_seconds=0.3)
    assert level(decaying, 0.4, 0.5) < 0.1 * level(decaying, 0.05, 0.15)
    swelling = Instrument(layer, attack_seconds=0.2)
    assert level(swelling, 0.05, 0.08) < 0.3 * level(swelling, 0.3, 0.5)
    roomy = Instrument(layer, room_seconds=1.0, room_gain=0.8, seed=1)
    assert level(roomy, 0.75, 0.9) > 10 * level(Instrument(layer), 0.75, 0.9)


def test_a_file_that_is_no_soundfont_is_said(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.sf2"
    wrong.write_bytes(b"no soundfont")
    for path in (wrong, tmp_path / "missing.sf2"):
        with pytest.raises(AudioReadError, match="expected a soundfont"):
            SoundfontPlayer(path, RATE)


def test_every_phrase_has_its_players(sets: PairSets) -> None:
    train = sets.train
    assert train.log_mel.shape == (16, 64, 128)
    assert train.players == 4
    for phrase in range(4):
        own = train.instrument_of[train.phrase_of == phrase]
        assert len(own.unique()) == 4
    assert set(sets.known.instrument_of.tolist()) <= set(range(4))
    assert not set(sets.unknown.instrument_of.tolist()) & set(train.instrument_of.tolist())
    assert not set(sets.known.phrase_of.tolist()) & set(train.phrase_of.tolist())


def test_a_killed_build_goes_on_and_gives_the_same(soundfont: Path, tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pairs(soundfont, tmp_path / "killed", config(), progress=stop)
    kept = sorted((tmp_path / "killed" / "pairs").glob("*.npy"))
    assert len(kept) == 3
    before = [path.stat().st_mtime_ns for path in kept]
    again = build_pairs(soundfont, tmp_path / "killed", config())
    assert [path.stat().st_mtime_ns for path in kept] == before
    whole = build_pairs(soundfont, tmp_path / "whole", config())
    assert torch.equal(again.train.log_mel, whole.train.log_mel)
    assert torch.equal(again.unknown.log_mel, whole.unknown.log_mel)


@pytest.mark.slow
def test_processes_play_the_same(soundfont: Path, tmp_path: Path) -> None:
    two = config().model_copy(
        update={"pairs": config().pairs.model_copy(update={"phrases": 8, "players": 2})}
    )
    apart = build_pairs(soundfont, tmp_path / "two", two, workers=2)
    alone = build_pairs(soundfont, tmp_path / "one", two)
    assert torch.equal(apart.train.log_mel, alone.train.log_mel)


def test_pairs_of_another_config_are_refused(soundfont: Path, tmp_path: Path) -> None:
    build_pairs(soundfont, tmp_path, config())
    other = config().model_copy(update={"pairs": config().pairs.model_copy(update={"phrases": 5})})
    with pytest.raises(ConfigError, match="expected pairs of this config"):
        build_pairs(soundfont, tmp_path, other)


def draw(pairs: Pairs, seed: int = 0, same_share: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    spectrogram = config().spectrogram
    batch = PairDraw(pairs, spectrogram)(6, 32, generator, duets=2, same_share=same_share)
    return batch.source, batch.reference, batch.target


def test_draws_follow_their_generator(sets: PairSets) -> None:
    first, again, other = draw(sets.train), draw(sets.train), draw(sets.train, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == first[2].shape == (12, 128, 32)
    assert first[1].shape == (12, 128, 64)
    floor = config().spectrogram.log_floor
    assert all(float(part.min()) >= floor for part in first)


def marked(sets: PairSets) -> Pairs:
    """Clips in which a band says who plays and another one what."""
    train = sets.train
    log_mel = torch.full_like(train.log_mel, -6.0)
    log_mel[:, :, 3] += train.instrument_of[:, None].half()
    log_mel[:, :, 9] += train.phrase_of[:, None].half()
    return replace(train, log_mel=log_mel)


def test_what_is_played_and_who_plays_come_from_the_right_clips(
    sets: PairSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an equaliser, marks in two bands tell instrument and phrase."""
    monkeypatch.setattr("audiovae.training.pair_batches._EQUALISED_SHARE", 0.0)
    monkeypatch.setattr("audiovae.training.pair_batches._BAND_LIMITED_SHARE", 0.0)
    source, reference, target = (part[:, :, 0] for part in draw(marked(sets)))

    def marks(clips: Tensor) -> tuple[list[int], list[int]]:
        level = clips[:, 0]
        who, what = (clips[:, 3] - level).round(), (clips[:, 9] - level).round()
        return who.int().tolist(), what.int().tolist()

    (who_plays, what), (who_sounds, elsewhere), (wanted, truth) = map(
        marks, (source, reference, target)
    )
    assert what == truth
    assert who_sounds == wanted
    assert (who_plays[6:], who_plays[:6]) == (wanted[:6], wanted[6:])
    assert what[6:] == what[:6]
    assert who_plays != wanted
    instruments = sets.train.instrument_of.bincount()
    for who, phrase, other in zip(wanted, truth, elsewhere, strict=True):
        assert phrase != other or instruments[who] == 1


def test_all_of_a_share_are_their_own_source(sets: PairSets) -> None:
    source, _, target = draw(sets.train, same_share=1.0)
    silent = config().spectrogram.log_floor + 0.1
    for row in range(len(source)):
        heard = (source[row] > silent) & (target[row] > silent)
        colour = (target[row] - source[row])[heard]
        by_band = (target[row] - source[row]).masked_fill(~heard, float("nan"))
        spread = by_band - by_band.nanmean(dim=1, keepdim=True)
        assert float(spread[heard].abs().max() if colour.numel() else 0) < 0.02


def test_an_equaliser_does_not_change_the_level(sets: PairSets) -> None:
    """Source and target have one level over the whole clip, whatever their equalisers."""
    generator = torch.Generator().manual_seed(4)
    whole = PairDraw(sets.train, config().spectrogram)
    batch = whole(4, 64, generator, duets=0, same_share=0.0)
    frames = torch.full((8,), 64)
    levels = [
        (part - at_reference_level(part, frames))[:, 0, 0] for part in (batch.source, batch.target)
    ]
    assert float(log_mel_to_db((levels[0] - levels[1]).abs()).max()) < 1.0


def test_hiss_belongs_to_the_instrument(sets: PairSets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all have some, no cell is silent, and target and reference have the same."""
    monkeypatch.setattr("audiovae.training.pair_batches._HISSING_SHARE", 1.0)
    source, reference, target = draw(replace(sets.train, log_mel=sets.train.log_mel * 0 - 12.0))
    floor = config().spectrogram.log_floor
    assert float(torch.stack([source, target]).min()) > floor
    (own, wanted, heard) = (part.mean(dim=2) for part in (source, target, reference))  # [row, mel]
    flicker = 0.25  # of a mean over 32 frames, in nats
    assert float((wanted - heard).abs().mean()) < flicker < float((own - wanted).abs().mean())


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04 and no more"])
def test_a_damaged_phrase_is_one_line(soundfont: Path, tmp_path: Path, data: bytes) -> None:
    build_pairs(soundfont, tmp_path, config())
    phrase = next(tmp_path.rglob("phrase_00001.npy"))
    phrase.write_bytes(data)
    with pytest.raises(ConfigError, match=r"phrase_00001\.npy: expected a phrase") as caught:
        build_pairs(soundfont, tmp_path, config())
    assert "pickle" not in str(caught.value)
    phrase.unlink()
    build_pairs(soundfont, tmp_path, config())
