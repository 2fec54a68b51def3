"""Coherence: channels move together, or apart, as they did."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import audiovae
from audiovae.audio import Clip
from audiovae.checkpoint import Model
from audiovae.codec import AvaeReader, CodedChunk, DamagedChunkError, decode_chunks, encode_chunks
from audiovae.codec.grid_symbols import angles_of, grid_symbols
from audiovae.coherence import MAX_STEPS, STEP_RADIANS, angles_of_frames, measure_angles, turn
from audiovae.config import SpectrogramConfig
from audiovae.errors import BitstreamError
from audiovae.gains import NUM_BANDS, num_blocks
from audiovae.spectrogram import hann_window
from tests.codec.files import some_angles
from tests.codec.tiny import conditions, lively_log_mel, tiny_model
from tests.tones import SAMPLE_RATE, noise

CONFIG = SpectrogramConfig()
FRAMES = 200
SAMPLES = FRAMES * CONFIG.hop_samples


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def base() -> Model:
    return audiovae.load_model("base")


def angles_between(first: Tensor, channel: Tensor) -> np.ndarray:
    return measure_angles(first, channel, FRAMES, CONFIG)


def mixture(coherence: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two channels of noise with so much in common."""
    first, other = noise(SAMPLES, seed), noise(SAMPLES, seed + 1000)
    return first, coherence * first + math.sqrt(1 - coherence**2) * other


def correlation(stereo: np.ndarray) -> float:
    return float(np.corrcoef(stereo)[0, 1])


@pytest.mark.parametrize(
    ("channel", "steps"),
    [("the same", 0), ("quieter", 0), ("upside down", MAX_STEPS), ("silent", 0), ("a quarter", 4)],
)
def test_angles_are_those_of_the_phase_alone(channel: str, steps: int) -> None:
    first = noise(SAMPLES)
    spectrum = torch.fft.rfft(first)
    other = {
        "the same": first,
        "quieter": 0.01 * first,
        "upside down": -first,
        "silent": torch.zeros(SAMPLES),
        "a quarter": torch.fft.irfft(1j * spectrum),
    }[channel]
    angles = angles_between(first, other)
    assert angles.shape == (NUM_BANDS, num_blocks(FRAMES))
    assert (angles == steps).all()


@pytest.mark.parametrize("coherence", [-0.9, -0.5, 0.0, 0.5, 0.9])
def test_the_cosine_is_the_coherence(coherence: float) -> None:
    angles = np.stack([angles_between(*mixture(coherence, seed)) for seed in range(8)])
    found = np.cos(STEP_RADIANS * angles).mean()
    # Phases agree somewhat more than amplitudes, which fall together less often.
    assert abs(coherence) - 0.05 <= abs(found) <= abs(coherence) + 0.25
    assert coherence * found >= 0


def test_a_channel_keeps_its_sides_apart() -> None:
    """Two halves with other angles: each block has its own."""
    first, apart = mixture(0.0)
    half = SAMPLES // 2
    angles = angles_between(first, torch.cat([first[:half], apart[half:]]))
    assert (angles[:, :2] == 0).all()
    assert (angles[:, -2:] >= 3).all()


@pytest.mark.parametrize("steps", range(MAX_STEPS + 1))
def test_what_is_turned_has_the_angle(steps: int) -> None:
    """Whatever phase both began with, in every band."""
    generator = torch.Generator().manual_seed(steps)
    turns = 2 * math.pi * torch.rand(1, 64, CONFIG.num_bins, generator=generator)
    before = torch.polar(torch.ones_like(turns), turns)
    angles = angles_of_frames(np.full((NUM_BANDS, 2), steps, np.int32), 64)
    after = turn(before, angles[None], CONFIG)
    torch.testing.assert_close(after.abs(), before.abs())
    agreement = (after * before.conj()).real[0]  # [frame, bin]
    for low in range(1, CONFIG.num_bins - 128, 128):
        mean = float(agreement[:, low : low + 128].mean())
        assert mean == pytest.approx(math.cos(steps * STEP_RADIANS), abs=0.06)


def test_an_angle_of_nothing_changes_nothing() -> None:
    direction = torch.polar(torch.ones(1, 8, 1025), torch.rand(1, 8, 1025))
    torch.testing.assert_close(turn(direction, torch.zeros(1, NUM_BANDS, 8), CONFIG), direction)


@pytest.mark.parametrize("frames", [1, 33, 431, 1024])
def test_angles_come_back_with_their_chunk(model: Model, frames: int) -> None:
    log_mel, count = lively_log_mel(frames, 0, 1024), torch.tensor([frames])
    angles = some_angles(frames, frames)
    bare, coded = (
        encode_chunks(model, log_mel, count, conditions(1), angles=[one])[0]
        for one in (None, angles)
    )
    plain, none = decode_chunks(model, [bare], 1024, conditions(1))
    turned, found = decode_chunks(model, [coded], 1024, conditions(1))
    assert none == [None]
    assert found[0] is not None
    np.testing.assert_array_equal(found[0], angles)
    assert torch.equal(plain[0, :, :frames], turned[0, :, :frames])
    assert coded.side_bits > bare.side_bits
    assert coded.symbols_crc != bare.symbols_crc


def test_damaged_angles_are_refused(model: Model) -> None:
    log_mel, count = lively_log_mel(512, 0, 512), torch.tensor([512])
    chunk = encode_chunks(model, log_mel, count, conditions(1), angles=[some_angles(512, 1)])[0]
    broken = replace(chunk, payload=flipped(chunk, chunk.corrections_bytes + 1))
    with pytest.raises(DamagedChunkError, match="chunk 0 of channel 0"):
        decode_chunks(model, [broken], 512, conditions(1))


def flipped(chunk: CodedChunk, place: int) -> bytes:
    """The payload with another row of angles."""
    payload = bytearray(chunk.payload)
    payload[place] ^= 1
    return bytes(payload)


@pytest.mark.parametrize("wrong", [-1, MAX_STEPS + 1])
def test_an_angle_that_no_encoder_writes_is_refused(wrong: int) -> None:
    symbols, _ = grid_symbols(np.full((NUM_BANDS, 3), wrong, np.int32))
    with pytest.raises(BitstreamError, match=f"angles of 0 to 8 steps, got {wrong}"):
        angles_of(symbols)


def test_only_files_of_several_channels_have_the_second_layout(base: Model) -> None:
    first, other = mixture(0.0)
    wide = torch.stack([first, other]).numpy()
    for waveform, version in ((wide, 2), (wide[:1], 1), (np.repeat(wide[:1], 2, axis=0), 1)):
        with AvaeReader(audiovae.compress(Clip(waveform, SAMPLE_RATE), base)) as reader:
            assert reader.version == version


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [("upside down", -1.0, -0.8), ("apart", -0.2, 0.2), ("half", 0.4, 0.8), ("near", 0.8, 1.0)],
)
def test_a_stereo_image_comes_back(base: Model, kind: str, lowest: float, highest: float) -> None:
    first, other = mixture({"half": 0.5, "near": 0.95}.get(kind, 0.0))
    stereo = torch.stack([first, -first if kind == "upside down" else other]).numpy()
    decoded = audiovae.decompress(audiovae.compress(Clip(stereo, SAMPLE_RATE), base), base)
    assert lowest <= correlation(decoded.waveform) <= highest


def test_a_transfer_keeps_the_image() -> None:
    """Latents have no channels; the clip they are decoded like has."""
    model = audiovae.load_model("timbre")
    first = noise(SAMPLES)
    clip = Clip(torch.stack([first, -first]).numpy(), SAMPLE_RATE)
    made = audiovae.decode(audiovae.encode(clip, model), model, like=clip)
    assert correlation(made.waveform) < -0.8


def test_an_image_costs_little(base: Model) -> None:
    clip = Clip(torch.stack(mixture(0.5)).numpy(), SAMPLE_RATE)
    apart = [len(audiovae.compress(Clip(one[None], SAMPLE_RATE), base)) for one in clip.waveform]
    extra = 8 * (len(audiovae.compress(clip, base)) - sum(apart)) / clip.duration_seconds
    assert extra < 120  # bits a second, less one header


def test_a_window_is_whole() -> None:
    """A clip shorter than a window has an angle, too."""
    short = noise(500)
    assert (measure_angles(short, -short, 4, CONFIG) == MAX_STEPS).all()
    assert len(hann_window(CONFIG.window_samples, short.device)) > len(short)
