"""Units of work: what comes out does not depend on how the work was cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audiovae.audio import Clip, Waveform, probe_audio, read_audio, write_audio
from audiovae.checkpoint import Model
from audiovae.codec import AvaeReader, AvaeWriter
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioVAEError, ConfigError, TruncatedAudioError
from audiovae.files import process_file, resynthesize
from audiovae.measuring import Measurer, build_measurement
from audiovae.reconstruct import Reconstructor
from audiovae.sources import plan_spans
from audiovae.stretches import SPAN_CHUNKS, Coding, Signal, Stopwatch, Stretch, channel_of
from audiovae.transform import (
    COMPRESS,
    RESYNTHESIZE,
    Transformer,
    TransformSettings,
)
from tests.small_models import load_tiny_model

CHUNK_STEP_SECONDS = 992 * 512 / 44_100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def transformer(model: Model) -> Transformer:
    return Transformer(model, TransformSettings((RESYNTHESIZE,), quality=5))


@pytest.fixture(scope="module")
def both(model: Model) -> Transformer:
    return Transformer(model, TransformSettings((COMPRESS, RESYNTHESIZE), quality=5))


def test_a_model_stays_on_its_device(tmp_path: Path) -> None:
    """Once these took a device, the CPU by default, and moved the caller's model there."""
    elsewhere = load_tiny_model(tmp_path)
    elsewhere.vae.to("meta")
    Transformer(elsewhere, TransformSettings())
    Measurer(elsewhere, build_measurement("embedding", elsewhere))
    assert Reconstructor(elsewhere).device == elsewhere.device == torch.device("meta")


def sound(seconds: float, rate: int = 44_100, channels: int = 1, seed: int = 0) -> Clip:
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    glide = 0.3 * np.sin(2 * np.pi * (200 * time + 300 * time**2 / max(seconds, 1)))
    noise = 0.02 * generator.standard_normal((channels, len(time)))
    return Clip((glide + noise).astype(np.float32), rate)


def outputs(folder: Path, stem: str, tag: str) -> dict[str, Path]:
    return {
        COMPRESS: folder / f"{stem}.{tag}.avae",
        RESYNTHESIZE: folder / f"{stem}.{tag}.wav",
    }


def run(reconstructor: Reconstructor, signal: Signal) -> tuple[Coding, Waveform]:
    coding = reconstructor.code([signal], Stopwatch())[0]
    return coding, reconstructor.sound([coding], Stopwatch())[0]


def save(folder: Path, name: str, clip: Clip) -> Path:
    path = folder / name
    write_audio(path, clip)
    return path


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_rate_length_and_channels_are_those_of_the_source(
    tmp_path: Path, transformer: Transformer, rate: int, channels: int
) -> None:
    source = save(tmp_path, "in.wav", sound(0.37, rate, channels))
    report = transformer.process_files([(source, {RESYNTHESIZE: tmp_path / "out.wav"})])[0]
    assert not isinstance(report, AudioVAEError)
    before, after = probe_audio(source), probe_audio(tmp_path / "out.wav")
    assert (after.sample_rate, after.num_channels, after.num_samples) == (
        before.sample_rate,
        before.num_channels,
        before.num_samples,
    )
    assert report.estimated_kbps > 0
    assert set(report.timings_seconds) == {"decode", "mel", "encode", "vocode", "write"}


@pytest.mark.parametrize("samples", [1, 2, 511, 2_047, 2_049])
def test_the_shortest_files_keep_their_length(
    tmp_path: Path, transformer: Transformer, samples: int
) -> None:
    source = save(tmp_path, "in.wav", Clip(np.full((1, samples), 0.1, np.float32), 44_100))
    transformer.process_files([(source, {RESYNTHESIZE: tmp_path / "out.wav"})])
    assert probe_audio(tmp_path / "out.wav").num_samples == samples


def test_company_in_a_pack_does_not_change_a_byte(tmp_path: Path, both: Transformer) -> None:
    lengths = [0.05, 0.3, 0.3, 0.9, 2.0, 5.0, 0.31, 13.0]
    sources = [save(tmp_path, f"{i}.wav", sound(s, seed=i)) for i, s in enumerate(lengths)]
    together = [(source, outputs(tmp_path, source.stem, "together")) for source in sources]
    both.process_files(together[::-1])
    for source, joint in together:
        alone = outputs(tmp_path, source.stem, "alone")
        both.process_files([(source, alone)])
        for product in (COMPRESS, RESYNTHESIZE):
            assert alone[product].read_bytes() == joint[product].read_bytes(), source.name


def test_a_bad_file_does_not_spoil_its_pack(tmp_path: Path, both: Transformer) -> None:
    good = save(tmp_path, "good.wav", sound(0.5))
    bad = tmp_path / "bad.wav"
    bad.write_bytes(good.read_bytes()[:-2000])
    jobs = [(path, outputs(tmp_path, path.stem, "out")) for path in (bad, good)]
    failed, done = both.process_files(jobs)
    assert isinstance(failed, TruncatedAudioError)
    assert not isinstance(done, AudioVAEError)
    assert not any(path.exists() for path in jobs[0][1].values())
    assert all(path.exists() for path in jobs[1][1].values())


def test_nothing_to_do_is_no_error(transformer: Transformer) -> None:
    assert transformer.process_files([]) == []


def test_spans_cover_every_chunk_once(tmp_path: Path) -> None:
    info = probe_audio(save(tmp_path, "long.wav", sound(130.0, rate=8_000)))
    spans = plan_spans(info)
    assert spans == ((0, SPAN_CHUNKS), (SPAN_CHUNKS, 12))


def test_cutting_into_spans_changes_no_sample_and_no_code(model: Model) -> None:
    waveform = sound(4.5 * CHUNK_STEP_SECONDS, channels=2).waveform
    total = waveform.shape[1]
    reconstructor = Reconstructor(model)
    config = reconstructor.spectrogram
    whole, whole_sound = run(reconstructor, Signal(Stretch(total, 0, 5), waveform, config, 0, 4.0))
    pieces = []
    for first, last in ((0, 1), (1, 4), (4, 5)):
        stretch = Stretch(total, first, last)
        start, stop = stretch.samples_needed(config)
        pieces.append(
            run(reconstructor, Signal(stretch, waveform[:, start:stop], config, start, 4.0))
        )
    np.testing.assert_array_equal(np.concatenate([s for _, s in pieces], axis=1), whole_sound)
    assert whole_sound.shape == waveform.shape
    assert [c for coding, _ in pieces for c in coding.chunks] == list(whole.chunks)
    assert sum(coding.frames for coding, _ in pieces) == whole.frames


def test_parts_are_joined_into_the_same_files(tmp_path: Path, both: Transformer) -> None:
    source = save(tmp_path, "in.flac", sound(3.2 * CHUNK_STEP_SECONDS, rate=32_000, channels=2))
    whole, joined = (outputs(tmp_path, "in", tag) for tag in ("whole", "joined"))
    report = both.process_files([(source, whole)])[0]
    parts = [tmp_path / f"part{i}" for i in range(2)]
    reports = [
        both.process_span(source, part, first, last)
        for part, (first, last) in zip(parts, ((0, 2), (2, 4)), strict=True)
    ]
    joint = both.assemble(source, parts, reports, joined)
    for product in (COMPRESS, RESYNTHESIZE):
        assert joined[product].read_bytes() == whole[product].read_bytes()
    assert not isinstance(report, AudioVAEError)
    assert joint.kbps == report.kbps
    assert joint.log_mel_l1_db == pytest.approx(report.log_mel_l1_db, rel=1e-5)
    assert joint.estimated_kbps == pytest.approx(report.estimated_kbps, rel=1e-5)


def test_channels_that_part_late_are_both_stored(tmp_path: Path, both: Transformer) -> None:
    clip = sound(2.5 * CHUNK_STEP_SECONDS, channels=1)
    stereo = np.repeat(clip.waveform, 2, axis=0)
    stereo[1, -44_100:] *= -0.5
    source = save(tmp_path, "in.wav", Clip(stereo, 44_100))
    parts = [tmp_path / f"part{i}" for i in range(3)]
    reports = [both.process_span(source, part, i, i + 1) for i, part in enumerate(parts)]
    assert reports[0].channel_of == (0, 0)
    assert reports[2].channel_of == (0, 1)
    joined, whole = (outputs(tmp_path, "in", tag) for tag in ("joined", "whole"))
    both.assemble(source, parts, reports, joined)
    both.process_files([(source, whole)])
    with AvaeReader(joined[COMPRESS]) as reader:
        assert reader.header.coded_channels == (0, 1)
    for product in (COMPRESS, RESYNTHESIZE):
        assert joined[product].read_bytes() == whole[product].read_bytes()


def test_channels_nearly_alike_in_a_part_are_so_however_it_is_cut(
    tmp_path: Path, both: Transformer
) -> None:
    """Alike within -40 dB in some chunks only, which no span may see otherwise than another."""
    mono, other = sound(4.5 * CHUNK_STEP_SECONDS).waveform[0], sound(60.0, seed=3).waveform[0]
    step = round(CHUNK_STEP_SECONDS * 44_100)
    apart = np.where(np.arange(len(mono)) < 2 * step, 0.3, 0.003).astype(np.float32)
    stereo = np.stack([mono, mono + apart * other[: len(mono)]])
    source = save(tmp_path, "in.wav", Clip(0.5 * stereo, 44_100))
    parts = [tmp_path / f"part{i}" for i in range(3)]
    reports = [
        both.process_span(source, part, *span)
        for part, span in zip(parts, ((0, 3), (3, 4), (4, 5)), strict=True)
    ]
    assert [report.channel_of for report in reports] == [(0, 1), (0, 0), (0, 0)]
    joined, whole = (outputs(tmp_path, "in", tag) for tag in ("joined", "whole"))
    both.assemble(source, parts, reports, joined)
    both.process_files([(source, whole)])
    again = {RESYNTHESIZE: tmp_path / "again.wav"}
    both.process_files([(whole[COMPRESS], again)])
    assert joined[COMPRESS].read_bytes() == whole[COMPRESS].read_bytes()
    sounds = {one[RESYNTHESIZE].read_bytes() for one in (joined, whole, again)}
    assert len(sounds) == 1


def test_resynthesis_is_the_decode_of_the_file(tmp_path: Path, both: Transformer) -> None:
    source = save(tmp_path, "in.wav", sound(1.7, rate=48_000, channels=2))
    first = outputs(tmp_path, "in", "first")
    both.process_files([(source, first)])
    again = {RESYNTHESIZE: tmp_path / "again.wav"}
    report = both.process_files([(first[COMPRESS], again)])[0]
    assert not isinstance(report, AudioVAEError), report
    assert again[RESYNTHESIZE].read_bytes() == first[RESYNTHESIZE].read_bytes()


def test_a_long_file_in_one_call_equals_the_clip_in_memory(tmp_path: Path, model: Model) -> None:
    clip = sound((SPAN_CHUNKS + 1.5) * CHUNK_STEP_SECONDS)
    source = save(tmp_path, "in.wav", clip)
    settings = TransformSettings((RESYNTHESIZE,), quality=5)
    process_file(source, {RESYNTHESIZE: tmp_path / "out.wav"}, model, settings)
    expected = resynthesize(read_audio(source), model, quality=5)
    got = read_audio(tmp_path / "out.wav")
    half_step_of_16_bits = 0.51 / 32_768
    np.testing.assert_allclose(
        got.waveform, np.clip(expected.waveform, -1, 1), rtol=0, atol=2 * half_step_of_16_bits
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav"]


def test_identical_channels_are_coded_once(model: Model) -> None:
    mono = sound(1.0).waveform
    stereo = np.concatenate([mono, mono])
    reconstructor, config = Reconstructor(model), model.config.spectrogram
    stretch = Stretch(mono.shape[1], 0, 1)
    one, one_sound = run(reconstructor, Signal(stretch, mono, config, 0, 4.0))
    two, two_sound = run(reconstructor, Signal(stretch, stereo, config, 0, 4.0))
    assert two.chunks == one.chunks
    np.testing.assert_array_equal(two_sound[0], two_sound[1])
    np.testing.assert_array_equal(two_sound[0], one_sound[0])


@pytest.mark.parametrize(
    ("what", "once"),
    [
        ("traces of a lossy codec", True),
        ("a second instrument", False),
        ("the same, quieter", False),
        ("the same, upside down", False),
        ("a late whisper", False),
        ("a late whisper of -90 dBFS", True),
    ],
)
def test_channels_that_sound_the_same_are_coded_once(what: str, once: bool) -> None:
    left, other = sound(2.0).waveform[0], sound(2.0, seed=5).waveform[0]
    right = {
        "traces of a lossy codec": left + 0.01 * other,
        "a second instrument": left + 0.2 * other,
        "the same, quieter": 0.7 * left,
        "the same, upside down": -left,
    }.get(what)
    if right is None:  # both fall silent after a second
        left = np.concatenate([left[: len(left) // 2], np.zeros(len(left) // 2, np.float32)])
        level = 3e-3 if what == "a late whisper" else 3e-5
        tail = np.arange(len(left)) >= len(left) // 2
        right = left + np.where(tail, level * np.sign(other), 0).astype(np.float32)
    stereo = np.stack([left, right]).astype(np.float32)
    signal = Signal(Stretch(stereo.shape[1], 0, 1), stereo, SpectrogramConfig())
    assert channel_of(signal) == ((0, 0) if once else (0, 1))


def test_quality_changes_the_result_and_is_checked(model: Model) -> None:
    clip = sound(1.0)
    low, high = (resynthesize(clip, model, quality=q).waveform for q in (1, 8))
    assert not np.array_equal(low, high)
    with pytest.raises(ConfigError, match="from 1 to 8, got 9"):
        resynthesize(clip, model, quality=9)


def test_without_a_vocoder_griffin_lim_sounds(model: Model, tmp_path: Path) -> None:
    silent_model = Model(**{**model.__dict__, "vocoder": None})
    source = save(tmp_path, "in.wav", sound(0.4))
    settings = TransformSettings((RESYNTHESIZE,), quality=5)
    for name in "ab":
        made = {RESYNTHESIZE: tmp_path / f"{name}.wav"}
        Transformer(silent_model, settings).process_files([(source, made)])
    a, b = ((tmp_path / f"{name}.wav").read_bytes() for name in "ab")
    assert a == b
    assert read_audio(tmp_path / "a.wav").waveform.any()


def test_a_searched_rate_is_the_same_for_every_span_and_worker(
    tmp_path: Path, model: Model
) -> None:
    stereo = np.repeat(sound(2.5 * CHUNK_STEP_SECONDS).waveform, 2, axis=0)
    stereo[1, -44_100:] *= -0.5  # alike at first, different at the end
    source = save(tmp_path, "in.wav", Clip(stereo, 44_100))
    settings = TransformSettings((COMPRESS, RESYNTHESIZE), kbps=1.0)
    parts = [tmp_path / f"part{i}" for i in range(3)]
    reports = [
        Transformer(model, settings).process_span(source, part, i, i + 1)
        for i, part in enumerate(parts)
    ]
    assert reports[0].channel_of != reports[2].channel_of
    assert len({report.log_lambda for report in reports}) == 1
    made = outputs(tmp_path, "in", "joined")
    Transformer(model, settings).assemble(source, parts, reports, made)
    again = {RESYNTHESIZE: tmp_path / "again.wav"}
    report = Transformer(model, TransformSettings()).process_files([(made[COMPRESS], again)])[0]
    assert not isinstance(report, AudioVAEError), report
    assert again[RESYNTHESIZE].read_bytes() == made[RESYNTHESIZE].read_bytes()
    assert report.timings_seconds["vocode"] > 0


def test_compressed_files_are_decoded_together_and_one_that_is_damaged_alone(
    model: Model, both: Transformer, transformer: Transformer, tmp_path: Path
) -> None:
    made = []
    for index, seconds in enumerate((0.4, 1.7, 0.5, 2.0)):
        source = save(tmp_path, f"{index}.wav", sound(seconds, seed=index))
        made.append(outputs(tmp_path, str(index), "made"))
        both.process_files([(source, made[-1])])
    wrong = made[1][COMPRESS]
    with AvaeReader(wrong) as reader:
        header, chunk = reader.header, reader.read_chunk(0, 0)
    with AvaeWriter(wrong, header) as writer:  # whole bytes, but other symbols than were coded
        writer.append(replace(chunk, symbols_crc=chunk.symbols_crc ^ 1))
    jobs = [(one[COMPRESS], outputs(tmp_path, str(i), "again")) for i, one in enumerate(made)]
    jobs = [(source, {RESYNTHESIZE: wanted[RESYNTHESIZE]}) for source, wanted in jobs]
    reports = transformer.process_files(jobs)
    assert [isinstance(report, AudioVAEError) for report in reports] == [False, True, False, False]
    assert "expected symbols with checksum" in str(reports[1])
    for index in (0, 2, 3):
        found = jobs[index][1][RESYNTHESIZE].read_bytes()
        assert found == made[index][RESYNTHESIZE].read_bytes()
