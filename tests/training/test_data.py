"""`audiovae.training.data` and `augment`: what is drawn, held back, refused and varied."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovae.audio.listing import LOCK_NAME
from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training import data
from audiovae.training.augment import augment_log_mel, augment_waveform
from audiovae.training.crops import copy_pieces, draw_crops, gather
from audiovae.training.data import (
    Corpus,
    load_waveforms,
    log_mel_corpus,
    log_mel_statistics,
    require_log_mels,
    to_float,
)
from tests.tones import noise, tones, waveform_corpus, write_tones

CONFIG = SpectrogramConfig()
CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counted_corpus(*lengths: int) -> Corpus:
    """Clips whose values say where they are: clip * 1000 + position + 1."""
    clips = [torch.arange(n, dtype=torch.int16) + 1000 * i + 1 for i, n in enumerate(lengths)]
    return Corpus.of_clips(clips, [f"{i}.wav" for i in range(len(lengths))])


def named_corpus(names: list[str]) -> Corpus:
    return Corpus.of_clips([torch.zeros(3)] * len(names), names)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    crop=st.sampled_from([8, 64, 128]),
    seed=st.integers(0, 100),
)
def test_crops_are_pieces_of_single_clips(lengths: list[int], crop: int, seed: int) -> None:
    corpus = counted_corpus(*lengths)
    crops = draw_crops(corpus, 16, crop, generator(seed), CPU)
    assert crops.data.shape == (16, crop)
    for row, count in zip(crops.data, crops.lengths.tolist(), strict=True):
        assert 1 <= count <= crop
        assert not row[count:].any()
        clip, place = divmod(int(row[0]) - 1, 1000)
        assert torch.equal(row[:count], corpus.clip(clip)[place : place + count])
        assert count >= min(crop - crop // 8, lengths[clip])


def test_one_step_on_a_device_draws_what_copies_do() -> None:
    corpus = counted_corpus(300, 7, 130)
    where = (torch.tensor([0, 1, 2, 2]), torch.tensor([250, 300, 307, 430]))
    counts = torch.tensor([50, 7, 64, 7])
    copied = copy_pieces(corpus, *where, counts, 64)
    assert torch.equal(gather(corpus, *where, counts, 64), copied)
    assert copied[1, :8].tolist() == [*range(1001, 1008), 0]


def test_clips_are_drawn_in_proportion_to_their_length() -> None:
    crops = draw_crops(counted_corpus(100, 300), 4000, 8, generator(), CPU)
    share = float((crops.data[:, 0] > 1000).float().mean())
    assert share == pytest.approx(0.75, abs=0.03)


def test_crops_follow_their_generator() -> None:
    corpus = counted_corpus(500, 400)
    first, again, other = (draw_crops(corpus, 8, 64, generator(s), CPU).data for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_growing_corpus_moves_no_clip_to_the_other_side() -> None:
    few = [f"take_{i}.wav" for i in range(300)]
    train, validation = named_corpus(few).split()
    assert sorted(train.names + validation.names) == sorted(few)
    assert 3 <= len(validation.names) <= 20
    more_train, more_validation = named_corpus([f"new/{i}.wav" for i in range(300)] + few).split()
    assert set(train.names) <= set(more_train.names)
    assert set(validation.names) <= set(more_validation.names)


def test_of_many_held_back_clips_a_few_dozen_are_measured_and_none_is_trained_on() -> None:
    names = [f"{i}.wav" for i in range(5000)]
    train, validation = named_corpus(names).split()
    assert len(validation.names) == 48
    assert not set(train.names) & set(validation.names)
    assert len(train.names) < 4900


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_small_corpus_holds_back_one_clip(count: int) -> None:
    train, validation = named_corpus([f"{i}.wav" for i in range(count)]).split()
    assert len(validation.names) == 1
    assert len(train.names) == count - 1


def test_a_single_clip_is_cut_in_time() -> None:
    train, validation = counted_corpus(100).split()
    assert train.clip(0).tolist() == list(range(1, 91))
    assert validation.clip(0).tolist() == list(range(91, 101))
    train, validation = counted_corpus(5).split()
    assert torch.equal(train.clip(0), validation.clip(0))


def test_of_few_long_clips_pieces_are_measured_evenly() -> None:
    corpus = counted_corpus(500, 90, 95)
    pieces = corpus.pieces(10)
    starts = [int(pieces.clip(index)[0]) - 1 for index in range(len(pieces.names))]
    assert len(starts) == 24
    assert starts == sorted(starts)
    assert {start // 1000 for start in starts} == {0, 1, 2}
    assert sum(start < 1000 for start in starts) in (17, 18)  # of 68 pieces 50 are the first's
    assert all(start % 10 == 0 for start in starts)
    assert set(pieces.lengths.tolist()) == {10}
    few = corpus.pieces(200)
    assert [int(few.clip(index)[0]) - 1 for index in range(4)] == [0, 200, 1000, 2000]
    assert few.lengths.tolist() == [200, 200, 90, 95]
    many = counted_corpus(*[50] * 30)
    assert many.pieces(10) is many


def test_a_folder_is_decoded_to_mono_at_one_rate(tmp_path: Path) -> None:
    folder = write_tones(tmp_path, count=2)
    stereo = np.stack([tones(22_050, 7), -tones(22_050, 7)], axis=1)
    soundfile.write(folder / "wide.flac", stereo, 22_050)
    (folder / "notes.txt").write_text("no audio")
    seen: list[tuple[int, int]] = []
    corpus = load_waveforms(folder, 44_100, progress=lambda *at: seen.append(at))
    assert corpus.names == ("tone_0.wav", "tone_1.wav", "wide.flac")
    assert corpus.lengths.tolist() == [44_100] * 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    expected = torch.from_numpy(tones(44_100, 1))
    assert float((to_float(corpus.clip(1)) - expected).abs().max()) < 1 / 32_000
    assert corpus.clip(2).abs().max() > 1000  # the two channels cancel: one of them is taken


def test_a_bad_file_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_tones(tmp_path, count=1)
    (folder / "broken.wav").write_bytes(b"RIFF but no more")
    with caplog.at_level(logging.WARNING):
        corpus = load_waveforms(folder, 44_100)
    assert corpus.names == ("tone_0.wav",)
    assert "broken.wav" in caplog.text


def test_what_runs_wrote_is_left_out_and_links_are_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_tones(tmp_path / "own", count=1)
    decoded = write_tones(folder / "tones_audiovae", count=1)
    for place in (decoded, decoded.parent):
        (place / LOCK_NAME).touch()
    (folder / "linked").symlink_to(write_tones(tmp_path / "other", count=2))
    (folder / "linked" / "around").symlink_to(folder)
    with caplog.at_level(logging.WARNING):
        corpus = load_waveforms(folder, 44_100)
    assert corpus.names == ("linked/tone_0.wav", "linked/tone_1.wav", "tone_0.wav")
    assert "the outputs of another run" in caplog.text


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_waveforms(folder, 44_100)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_directory_no_audio_and_nothing_readable_are_one_line(tmp_path: Path) -> None:
    assert "expected a directory" in refusal(tmp_path / "nowhere")
    assert "expected audio files, found none" in refusal(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"not audio")
    assert "expected readable audio" in refusal(tmp_path)


def test_more_than_half_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "memory_bytes", lambda: 200_000.0)
    assert "pipelines.preprocess" in refusal(write_tones(tmp_path))


def test_log_mel_corpus_is_the_spectrogram_of_every_clip() -> None:
    waveforms = waveform_corpus(count=2)
    corpus = log_mel_corpus(waveforms, CONFIG)
    for index in range(2):
        expected = log_mel_spectrogram(to_float(waveforms.clip(index))[None], CONFIG)[0].T.half()
        assert torch.equal(corpus.clip(index), expected)


def test_pieces_of_a_long_clip_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = log_mel_corpus(waveform_corpus(count=1), CONFIG)
    monkeypatch.setattr(data, "_PIECE_FRAMES", 17)
    assert torch.equal(log_mel_corpus(waveform_corpus(count=1), CONFIG).clip(0), whole.clip(0))


def test_statistics_are_the_mean_and_deviation_of_each_band() -> None:
    clips = [(-5 + 2 * torch.randn(n, 128, generator=generator(n))).half() for n in (3000, 50)]
    mean, deviation = log_mel_statistics(Corpus.of_clips(clips, ["a", "b"]), CONFIG)
    together = torch.cat(clips).float()
    torch.testing.assert_close(mean, together.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deviation, together.std(dim=0), rtol=1e-3, atol=1e-3)


def test_silence_cannot_be_standardised() -> None:
    silence = torch.full((100, 128), CONFIG.log_floor).half()
    with pytest.raises(ConfigError, match="silence only"):
        log_mel_statistics(Corpus.of_clips([silence], ["a"]), CONFIG)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -11.6, 40.0])
def test_what_is_no_log_mel_is_refused_by_its_clip(value: float) -> None:
    clip = torch.full((100, 128), -5.0).half()
    clip[70, 3] = value
    corpus = Corpus.of_clips([torch.full((9, 128), -4.0).half(), clip], ["a.wav", "b.wav"])
    corpus = replace(corpus, mapped=True)
    with pytest.raises(ConfigError, match=r"in those of 'b\.wav': its shard is damaged"):
        log_mel_statistics(corpus, CONFIG)


@pytest.mark.parametrize("level", [0.0, 1.0, 1e9])
def test_the_log_mel_of_any_sound_is_one(level: float) -> None:
    sound = torch.zeros(1, 8192)
    sound[:, 1000:] = level * torch.cos(torch.arange(7192) / 3)
    log_mel = log_mel_spectrogram(sound, CONFIG)[0].T
    require_log_mels(log_mel, CONFIG, "a.wav")
    require_log_mels(log_mel.half(), CONFIG, "a.wav")


def test_augmented_log_mels_keep_the_floor_and_their_silence() -> None:
    log_mel = log_mel_spectrogram(noise(64 * 512).repeat(64, 1), CONFIG)
    log_mel[:, :, :10] = torch.tensor(CONFIG.log_floor).half().float()
    changed = augment_log_mel(log_mel, CONFIG, generator())
    assert changed.shape == log_mel.shape
    assert float(changed.min()) >= CONFIG.log_floor - 1e-5
    assert float(changed[:, :, :10].max()) <= CONFIG.log_floor + 1e-5
    gains = (changed - log_mel)[:, 64, 40]
    assert (gains == 0).any()
    assert gains.unique().numel() > 20
    assert torch.equal(changed, augment_log_mel(log_mel, CONFIG, generator()))


def test_augmented_waveforms_meet_silence_band_limits_and_full_scale() -> None:
    waveform = noise(8192).repeat(400, 1)
    changed = augment_waveform(waveform, 44_100, generator())
    assert changed.shape == waveform.shape
    assert torch.isfinite(changed).all()
    assert float(changed.abs().max()) <= 1.0
    assert (changed == 0).sum(dim=1).gt(100).any()  # cut to silence
    power = torch.fft.rfft(changed).abs().square()
    high = power[:, 3000:].mean(dim=1) / power[:, 100:300].mean(dim=1)
    assert (high < 1e-3).float().mean() > 0.05  # band-limited
    assert (changed.abs() == 1).sum(dim=1).gt(10).any()  # clipped
    assert torch.equal(changed, augment_waveform(waveform, 44_100, generator()))
