"""Moved files: what is kept, what arrives, and that nothing depends on how the work was cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiovae.arithmetic import transfer
from audiovae.audio import Clip, probe_audio, read_audio, write_audio
from audiovae.checkpoint import Model
from audiovae.clips import decode, encode
from audiovae.errors import (
    AudioVAEError,
    BitstreamError,
    ModelMismatchError,
    NotAudioError,
    ShapeError,
)
from audiovae.files import process_file, resynthesize
from audiovae.morph.plan import plan_morph
from audiovae.morph.settings import MorphSettings, step_amounts
from audiovae.morph.targets import file_timbre, measure_timbre
from audiovae.timbre.library import TimbreLibrary
from audiovae.timbre.moves import Course, TimbreMove
from audiovae.transform import RESYNTHESIZE, Transformer, TransformSettings
from tests.small_models import load_tiny_model, load_tiny_timbre_model
from tests.tones import tones

CHUNK_STEP_SECONDS = 992 * 512 / 44_100
LIBRARY = TimbreLibrary(Path("no library"))
BITS_24 = 2.0**-23


@pytest.fixture(scope="module", params=["coded", "plain"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with a timbre code, and one without."""
    folder = tmp_path_factory.mktemp("model")
    return load_tiny_timbre_model(folder) if request.param == "coded" else load_tiny_model(folder)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_tiny_timbre_model(tmp_path_factory.mktemp("coded"))


def clip_of(seconds: float, rate: int = 44_100, channels: int = 1, seed: int = 0) -> Clip:
    sines = tones(round(seconds * 44_100), seed)[:: max(1, 44_100 // rate)]
    samples = np.stack([sines * (1 - 0.3 * c) for c in range(channels)])
    return Clip(samples[:, : round(seconds * rate)].astype(np.float32), rate, 24)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    write_audio(folder / "a.wav", clip_of(0.9))
    write_audio(folder / "b.wav", clip_of(0.6, 22_050, 2, seed=5))
    (folder / "bs").mkdir()
    for seed in (5, 6):
        write_audio(folder / "bs" / f"{seed}.wav", clip_of(0.4, seed=seed))
    (folder / "bs" / "broken.wav").write_bytes(b"RIFF")
    return folder


def samples(path: Path) -> np.ndarray:
    return read_audio(path).waveform


def moved(source: Path, target: Path, model: Model, move: TimbreMove | None) -> np.ndarray:
    settings = TransformSettings((RESYNTHESIZE,), move=move)
    process_file(source, {RESYNTHESIZE: target}, model, settings)
    return samples(target)


def test_decoding_what_was_encoded_is_the_resynthesis(model: Model) -> None:
    clip = clip_of(1.2 * CHUNK_STEP_SECONDS, 22_050, 2)
    decoded = decode(encode(clip, model), model, like=clip, polish_steps=0)
    assert (decoded.sample_rate, decoded.bit_depth) == (22_050, 24)
    np.testing.assert_array_equal(
        decoded.waveform, resynthesize(clip, model, polish_steps=0).waveform
    )


def test_a_clip_moves_as_its_file_does(model: Model, sounds: Path, tmp_path: Path) -> None:
    a, b = read_audio(sounds / "a.wav"), read_audio(sounds / "b.wav")
    target = encode(b, model)
    here = decode(transfer(encode(a, model), target, 0.7), model, like=a).waveform
    move = TimbreMove(file_timbre(sounds / "b.wav", model), Course(stop=0.7))
    there = moved(sounds / "a.wav", tmp_path / "out.wav", model, move)
    np.testing.assert_allclose(there, np.clip(here, -1, 1), rtol=0, atol=BITS_24)


def test_latents_decode_only_like_their_own_clip_and_by_their_own_model(
    coded: Model, tmp_path: Path
) -> None:
    clip = clip_of(0.5)
    latents = encode(clip, coded)
    with pytest.raises(ShapeError, match="give the clip they were made from"):
        decode(latents, coded, like=clip_of(0.7))
    with pytest.raises(ModelMismatchError, match="encode the audio again"):
        decode(latents, load_tiny_timbre_model(tmp_path, seed=3), like=clip)


def test_amount_0_is_the_plain_resynthesis_bit_for_bit(
    model: Model, sounds: Path, tmp_path: Path
) -> None:
    target = file_timbre(sounds / "b.wav", model)
    plain = moved(sounds / "a.wav", tmp_path / "plain.wav", model, None)
    for course in (Course(stop=0.0), Course(0.0, 0.0, 40)):
        still = moved(sounds / "a.wav", tmp_path / "0.wav", model, TimbreMove(target, course))
        np.testing.assert_array_equal(still, plain)
    whole = moved(sounds / "a.wav", tmp_path / "1.wav", model, TimbreMove(target))
    assert np.abs(whole - plain).max() > 0.05 * np.abs(plain).max()


def test_a_timbre_of_another_model_is_refused(model: Model, sounds: Path, tmp_path: Path) -> None:
    other = load_tiny_timbre_model(tmp_path, seed=9)
    settings = TransformSettings(move=TimbreMove(file_timbre(sounds / "b.wav", other)))
    with pytest.raises(ModelMismatchError, match="measure it again with this model"):
        Transformer(model, settings)


def test_a_compressed_file_has_no_timbre_to_move(coded: Model, sounds: Path) -> None:
    coarse = Path(__file__).parents[1] / "golden"
    compressed = next(coarse.rglob("*.avae"))
    settings = TransformSettings(move=TimbreMove(file_timbre(sounds / "b.wav", coded)))
    report = Transformer(coded, settings).process_files([(compressed, {})])[0]
    assert isinstance(report, BitstreamError)
    assert "decode it first" in str(report)


@pytest.mark.parametrize("course", [Course(), Course(0.0, 1.0, 1500)])
def test_spans_and_company_change_nothing(coded: Model, tmp_path: Path, course: Course) -> None:
    write_audio(tmp_path / "long.wav", clip_of(1.4 * CHUNK_STEP_SECONDS))
    write_audio(tmp_path / "short.wav", clip_of(0.3))
    move = TimbreMove(file_timbre(tmp_path / "short.wav", coded), course, keep_loudness=True)
    settings = TransformSettings((RESYNTHESIZE,), polish_steps=0, move=move)
    transformer = Transformer(coded, settings)
    names = ("short.wav", "long.wav")
    jobs = [(tmp_path / name, {RESYNTHESIZE: tmp_path / f"{name}.wav"}) for name in names]
    assert not any(isinstance(r, AudioVAEError) for r in transformer.process_files(jobs))
    parts = [tmp_path / "0.part", tmp_path / "1.part"]
    spans = [transformer.process_span(jobs[1][0], part, i, i + 1) for i, part in enumerate(parts)]
    transformer.assemble(jobs[1][0], parts, spans, {RESYNTHESIZE: tmp_path / "spans.wav"})
    np.testing.assert_array_equal(
        samples(tmp_path / "long.wav.wav"), samples(tmp_path / "spans.wav")
    )
    process_file(jobs[0][0], {RESYNTHESIZE: tmp_path / "alone.wav"}, coded, settings)
    np.testing.assert_array_equal(
        samples(tmp_path / "short.wav.wav"), samples(tmp_path / "alone.wav")
    )


@pytest.mark.usefixtures("exact_products")
def test_a_glide_begins_here_and_ends_there(model: Model, sounds: Path, tmp_path: Path) -> None:
    target = file_timbre(sounds / "b.wav", model)
    source = sounds / "a.wav"
    plain = moved(source, tmp_path / "plain.wav", model, None)
    whole = moved(source, tmp_path / "whole.wav", model, TimbreMove(target))
    late = moved(source, tmp_path / "late.wav", model, TimbreMove(target, Course(0, 1, 10**9)))
    early = moved(source, tmp_path / "early.wav", model, TimbreMove(target, Course(0, 1, 1)))
    spread = moved(source, tmp_path / "spread.wav", model, TimbreMove(target, Course(0, 1, 60)))
    distance = np.abs(whole - plain).max()
    assert np.abs(late - plain).max() < 0.02 * distance
    second = 44_100 // 2  # frame 43 of 78; the vocoder looks some frames ahead
    assert np.abs(early[:, second:] - whole[:, second:]).max() < 0.02 * distance
    assert np.abs(spread - plain).max() > 0.1 * distance
    assert np.abs(spread[:, -4_000:] - whole[:, -4_000:]).max() < 0.02 * distance


def test_loudness_is_kept_on_request(coded: Model, sounds: Path, tmp_path: Path) -> None:
    target = file_timbre(sounds / "b.wav", coded)

    def level(name: str, *, keep_loudness: bool) -> float:
        # So far away that nothing of the sound's own loudness is left.
        move = TimbreMove(target, Course(stop=1e3), keep_loudness=keep_loudness)
        return float(20 * np.log10(moved(sounds / "a.wav", tmp_path / name, coded, move).std()))

    # The tiny model's decoder is too quiet by more than 12 dB, so all of those are given.
    louder = level("kept.wav", keep_loudness=True) - level("free.wav", keep_loudness=False)
    assert louder == pytest.approx(12.0, abs=1.5)


@pytest.mark.parametrize("content", ["a", "blend"])
def test_the_first_step_is_the_plain_resynthesis(
    model: Model, sounds: Path, tmp_path: Path, content: str
) -> None:
    ends = str(sounds / "a.wav"), str(sounds / "b.wav")
    way = plan_morph(*ends, content, model, LIBRARY, MorphSettings())
    way.step(tmp_path / "0.wav", 0.0)
    plain = moved(sounds / "a.wav", tmp_path / "plain.wav", model, None)
    np.testing.assert_array_equal(samples(tmp_path / "0.wav"), plain)


@pytest.mark.parametrize(
    ("content", "seconds"), [("a", (0.9, 0.9, 0.9)), ("blend", (0.9, 0.75, 0.6))]
)
def test_steps_have_the_rate_and_channels_of_the_content(
    coded: Model, sounds: Path, tmp_path: Path, content: str, seconds: tuple[float, ...]
) -> None:
    ends = str(sounds / "a.wav"), str(sounds / "b.wav")
    way = plan_morph(*ends, content, coded, LIBRARY, MorphSettings(format="flac"))
    for amount, length in zip(step_amounts(3), seconds, strict=True):
        way.step(tmp_path / "step.flac", amount)
        info = probe_audio(tmp_path / "step.flac")
        assert (info.sample_rate, info.num_channels) == (44_100, 1)
        assert info.duration_seconds == pytest.approx(length, abs=1e-4)
    way.glide(tmp_path / "glide.flac", 0.0)
    assert probe_audio(tmp_path / "glide.flac").duration_seconds == pytest.approx(seconds[1])


@pytest.mark.parametrize(("amount", "seconds"), [(-0.5, 0.9), (1.6, 0.6), (40.0, 0.6)])
def test_a_blend_beyond_an_end_is_as_long_as_that_end(
    coded: Model, sounds: Path, tmp_path: Path, amount: float, seconds: float
) -> None:
    ends = str(sounds / "a.wav"), str(sounds / "b.wav")
    plan_morph(*ends, "blend", coded, LIBRARY, MorphSettings()).step(tmp_path / "o.wav", amount)
    assert probe_audio(tmp_path / "o.wav").duration_seconds == pytest.approx(seconds, abs=1e-4)


def test_a_blend_ends_with_the_other_sound(coded: Model, sounds: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "c.wav", clip_of(0.6, seed=7))
    ends = str(sounds / "a.wav"), str(tmp_path / "c.wav")
    plan_morph(*ends, "blend", coded, LIBRARY, MorphSettings()).step(tmp_path / "1.wav", 1.0)
    plain = moved(tmp_path / "c.wav", tmp_path / "plain.wav", coded, None)
    np.testing.assert_allclose(samples(tmp_path / "1.wav"), plain, rtol=0, atol=1e-4)


def test_a_directory_without_sound_is_refused_behind_others_too(
    model: Model, sounds: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(NotAudioError, match="got 1 that cannot be read"):
        measure_timbre([sounds / "bs", tmp_path], model)


def test_a_directory_is_the_mean_of_what_can_be_read(model: Model, sounds: Path) -> None:
    found = measure_timbre([sounds / "bs"], model)
    assert (found.num_files, found.num_failed) == (2, 1)
    ends = [file_timbre(sounds / "bs" / f"{seed}.wav", model) for seed in (5, 6)]
    for mean, *parts in zip(found.timbre.group_means, *(e.group_means for e in ends), strict=True):
        np.testing.assert_allclose(mean, (parts[0] + parts[1]) / 2, atol=1e-6)


def test_other_content_takes_both_timbres(coded: Model, sounds: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "tune.wav", clip_of(0.5, 48_000 // 2, seed=8))
    way = plan_morph(
        str(sounds / "bs"),
        str(sounds / "a.wav"),
        tmp_path / "tune.wav",
        coded,
        LIBRARY,
        MorphSettings(),
    )
    way.step(tmp_path / "0.wav", 0.0)
    target = measure_timbre([sounds / "bs"], coded).timbre
    expected = moved(tmp_path / "tune.wav", tmp_path / "bs.wav", coded, TimbreMove(target))
    np.testing.assert_array_equal(samples(tmp_path / "0.wav"), expected)


@pytest.mark.parametrize(
    ("first", "second", "content", "message"),
    [
        ("bs", "a.wav", "a", "expected an audio file as A"),
        ("a.wav", "bs", "blend", "expected two audio files to blend"),
        ("a.wav", "nowhere.wav", "a", "nowhere.wav: expected"),
        (
            "a.wav",
            "oboe",
            "a",
            "oboe: expected an audio file, a directory, or a timbre saved in no library (none)",
        ),
        ("a.wav", "empty", "a", "got one without"),
    ],
)
def test_ends_that_cannot_be_are_refused(
    coded: Model,
    sounds: Path,
    first: str,
    second: str,
    content: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(sounds)
    (sounds / "empty").mkdir(exist_ok=True)
    with pytest.raises(AudioVAEError) as caught:
        plan_morph(first, second, content, coded, LIBRARY, MorphSettings())
    assert message in str(caught.value)


def test_curves_space_the_steps() -> None:
    assert step_amounts(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    eased = step_amounts(5, "ease")
    assert eased[0] == 0.0
    assert eased[2] == 0.5
    assert eased[1] < 0.25
    assert eased[-1] == 1.0
