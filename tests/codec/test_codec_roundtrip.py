"""Model and coder together: the same symbols everywhere, and never a wrong sound in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiovae.checkpoint import Model
from audiovae.chunks import padded_frames
from audiovae.codec import (
    AvaeReader,
    CodedChunk,
    DamagedChunkError,
    chunk_coding,
    decode_chunks,
    encode_chunks,
    measure_chunk,
)
from audiovae.codec.symbols import TIE_MARGIN
from audiovae.config import BottleneckConfig
from audiovae.errors import ModelMismatchError, ShapeError
from audiovae.latents import Conditions
from audiovae.models.bottlenecks.quantized import Bottleneck, ResidualPrior
from tests.codec.files import decode_file, encode_file, header_for, mutate, outcome
from tests.codec.tiny import TINY, conditions, lively_log_mel, tiny_model, without_gains

DECODER_NOISE = 1e-5
"""Relative, on every prior mean and scale; the margin covers it and what it grows to."""
SHARED_MODEL = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def coded(model: Model, frames: int, seed: int = 0, log_lambda: float = 6.0) -> CodedChunk:
    log_mel = lively_log_mel(frames, seed, padded_frames(frames))
    under = conditions(1, log_lambda)
    return encode_chunks(model, log_mel, torch.tensor([frames]), under)[0]


def decoded(model: Model, chunk: CodedChunk, log_lambda: float = 6.0) -> torch.Tensor:
    shape = padded_frames(chunk.num_frames)
    return decode_chunks(model, [chunk], shape, conditions(1, log_lambda))[0]


@SHARED_MODEL
@given(st.integers(1, 1024), st.integers(0, 1000), st.floats(3.5, 10.25, width=32))
def test_the_decoder_hears_what_the_encoder_made(
    model: Model, frames: int, seed: int, log_lambda: float
) -> None:
    log_mel = lively_log_mel(frames, seed, padded_frames(frames))
    under = conditions(1, log_lambda)
    with without_gains():
        chunk = encode_chunks(model, log_mel, torch.tensor([frames]), under)[0]
    expected = model.vae.encode(log_mel, torch.tensor([frames]), under).log_mel
    found, _ = decode_chunks(model, [chunk], log_mel.shape[2], under)
    torch.testing.assert_close(found[..., :frames], expected[..., :frames], rtol=0, atol=1e-4)


def test_scales_of_the_tiny_model_vary(model: Model) -> None:
    """Else the tests of this file would prove little."""
    chunk = coded(model, 1024)
    assert chunk.corrections_bytes >= 4
    assert min(chunk.level_bits) > 100


@pytest.mark.parametrize("shape", [512, 1024])
def test_padding_does_not_change_symbols(model: Model, shape: int) -> None:
    chunk = coded(model, 300)
    found, _ = decode_chunks(model, [chunk], shape, conditions(1))
    torch.testing.assert_close(
        found[..., :300], decoded(model, chunk)[..., :300], rtol=0, atol=1e-4
    )


def test_rows_of_a_batch_are_independent(model: Model) -> None:
    lengths = [512, 3, 200, 511]
    chunks = [coded(model, frames, seed) for seed, frames in enumerate(lengths)]
    together, _ = decode_chunks(model, chunks, 512, conditions(4))
    for row, chunk in enumerate(chunks):
        alone = decoded(model, chunk)[0, :, : chunk.num_frames]
        torch.testing.assert_close(together[row, :, : chunk.num_frames], alone, rtol=0, atol=1e-4)
    log_mel = torch.cat([lively_log_mel(n, seed, 512) for seed, n in enumerate(lengths)])
    batch = encode_chunks(model, log_mel, torch.tensor(lengths), conditions(4))
    for chunk in batch:
        assert decoded(model, chunk).shape[2] == padded_frames(chunk.num_frames)


def test_rows_may_have_different_conditions(model: Model) -> None:
    chunks = [coded(model, 100, seed=1, log_lambda=4.0), coded(model, 100, seed=2, log_lambda=9.0)]
    decode_chunks(model, chunks, 128, Conditions(torch.tensor([4.0, 9.0])))
    with pytest.raises(DamagedChunkError, match="checksum"):
        decode_chunks(model, chunks, 128, Conditions(torch.tensor([9.0, 4.0])))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_symbols(model: Model, threads: int) -> None:
    chunks = [coded(model, 1024, seed) for seed in range(3)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for chunk in chunks:
            decoded(model, chunk)
        decode_chunks(model, chunks, 1024, conditions(3))
    finally:
        torch.set_num_threads(before)


def make_noisy(monkeypatch: pytest.MonkeyPatch, seed: int, of_mean: float, of_scale: float) -> None:
    """Relative noise on every prior mean and scale from now on."""
    generator = torch.Generator().manual_seed(seed)
    split = Bottleneck.split_prior

    def noise(like: torch.Tensor) -> torch.Tensor:
        return 2 * torch.rand(like.shape, generator=generator) - 1

    def noisy(self: Bottleneck, prior: torch.Tensor) -> ResidualPrior:
        exact = split(self, prior)
        mean = exact.mean * (1 + of_mean * noise(exact.mean))
        return ResidualPrior(mean, exact.log_scale + of_scale * noise(exact.mean))

    monkeypatch.setattr(Bottleneck, "split_prior", noisy)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("of_mean", "of_scale"), [(DECODER_NOISE, DECODER_NOISE), (0.0, 0.95 * TIE_MARGIN)]
)
def test_a_decoder_with_noisy_floats_decodes_the_same_symbols(
    model: Model, seed: int, of_mean: float, of_scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = coded(model, 1024, seed)
    make_noisy(monkeypatch, seed, of_mean, of_scale)
    decoded(model, chunk)


def test_without_corrections_such_noise_would_do_harm(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the checksum of symbols would find it: an error, never noise."""
    noise = 0.95 * TIE_MARGIN
    monkeypatch.setattr("audiovae.codec.symbols.TIE_MARGIN", 0.0)
    chunks = [coded(model, 1024, seed) for seed in range(6)]
    make_noisy(monkeypatch, 0, 0.0, noise)
    caught = 0
    for chunk in chunks:
        try:
            decoded(model, chunk)
        except DamagedChunkError:
            caught += 1
    assert caught >= 4


def test_a_decoder_too_far_off_is_caught(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum of symbols turns too large a difference into an error, not into noise."""
    chunk = coded(model, 1024)
    split = Bottleneck.split_prior

    def far_off(self: Bottleneck, prior: torch.Tensor) -> ResidualPrior:
        exact = split(self, prior)
        return ResidualPrior(exact.mean, exact.log_scale + 100 * TIE_MARGIN)

    monkeypatch.setattr(Bottleneck, "split_prior", far_off)
    with pytest.raises(DamagedChunkError, match=r"chunk 0 of channel 0 \(0.0 to 11.9 s\)"):
        decoded(model, chunk)


DECODE_SCRIPT = """
import sys, torch
from pathlib import Path
from audiovae.checkpoint import load_model
from tests.codec.files import decode_file
model = load_model(sys.argv[1], vocoder=None)
assert torch.backends.cpu.get_cpu_capability() == sys.argv[3], "capability"
print(len(decode_file(model, Path(sys.argv[2]).read_bytes())))
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_other_vector_units_decode_the_same_symbols(tmp_path: Path, capability: str) -> None:
    known = ["default", "avx2", "avx512"]
    best = torch.backends.cpu.get_cpu_capability().lower()
    if best not in known or known.index(capability) > known.index(best):
        pytest.skip(f"this processor has no {capability}")
    model = tiny_model(tmp_path)
    path = tmp_path / "sound.avae"
    path.write_bytes(encode_file(model, header_for(model, 600_000, num_channels=2)))
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            DECODE_SCRIPT,
            str(next(tmp_path.glob("*.safetensors"))),
            str(path),
            capability.upper(),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "4", done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_decodes_the_same_symbols(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    chunk = coded(model, 1024)
    on_gpu = replace(model, vae=tiny_model(tmp_path).vae.to("cuda"))
    under = Conditions(torch.full((1,), 6.0, device="cuda"))
    decode_chunks(on_gpu, [chunk], 1024, under)


@pytest.mark.parametrize("frames", [431, 1024])
def test_true_bytes_are_those_the_model_estimates(model: Model, frames: int) -> None:
    num_samples = frames * 512
    data = encode_file(model, header_for(model, num_samples))
    chunk = coded(model, frames)
    estimate = (sum(chunk.level_bits) + chunk.side_bits) / 8
    seconds = num_samples / 44_100
    with AvaeReader(data) as reader:
        assert reader.read_chunk(0, 0).payload == chunk.payload
    assert len(data) <= 1.02 * estimate + 64 + 3 * seconds


def test_bits_are_reported_by_level_and_corrections_apart(model: Model) -> None:
    chunk = coded(model, 512)
    output = model.vae.encode(lively_log_mel(512, 0), torch.tensor([512]), conditions(1))
    assert chunk.level_bits == pytest.approx(output.level_bits()[0].tolist(), rel=1e-4)
    assert 1 <= chunk.corrections_bytes < 40


def test_a_chunk_of_a_file_can_be_measured(model: Model) -> None:
    chunk = coded(model, 300)
    bare = CodedChunk(chunk.payload, chunk.symbols_crc, chunk.num_frames)
    measured = measure_chunk(model, bare, 6.0)
    assert measured.corrections_bytes == chunk.corrections_bytes
    assert measured.level_bits == pytest.approx(chunk.level_bits, rel=1e-4)
    assert measured.side_bits == chunk.side_bits > 0


def test_precision_switches_are_put_back(model: Model) -> None:
    torch.set_float32_matmul_precision("high")
    try:
        decoded(model, coded(model, 10))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_model_that_codes_nothing_is_refused(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"bottleneck": BottleneckConfig(kind="gaussian")})
    from audiovae.checkpoint import Provenance, load_model, save_vae
    from audiovae.models.hvae import HVAE

    save_vae(tmp_path / "g.safetensors", HVAE(config), Provenance(), ())
    other = load_model(tmp_path / "g.safetensors", vocoder=None)
    with pytest.raises(ModelMismatchError, match="quantized"):
        coded(other, 10)


def test_a_shape_too_small_is_refused(model: Model) -> None:
    with pytest.raises(ShapeError, match="at least 100"):
        decode_chunks(model, [coded(model, 100)], 64, conditions(1))


@SHARED_MODEL
@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_payloads_of_rubbish_are_refused(model: Model, payload: bytes, crc: int) -> None:
    """Even with checksums that a liar made right."""
    with pytest.raises(DamagedChunkError):
        decoded(model, CodedChunk(payload, crc, num_frames=64))


def test_a_thousand_damaged_files_are_refused(model: Model) -> None:
    generator = np.random.default_rng(0)
    headers = [
        header_for(model, 30_000),
        header_for(model, 520_000, num_channels=2),
        header_for(model, 600_000, num_channels=3, channel_sources=(0, 0, 2), sample_rate=48_000),
    ]
    files = [encode_file(model, header) for header in headers]
    truths = [decode_file(model, data) for data in files]
    counts: Counter[str] = Counter()
    for number in range(1_000):
        which = number % len(files)
        mutated = mutate(files[which], generator)
        found = outcome(model, mutated, truths[which])
        if found == "same":
            assert mutated == files[which]
        counts[found] += 1
    assert set(counts) <= {"same", "refused"}, counts
    assert counts["refused"] > 950


def test_switches_that_threads_share_are_put_back_by_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    first, second = ExitStack(), ExitStack()
    first.enter_context(chunk_coding._EXACT_FLOAT32)
    second.enter_context(chunk_coding._EXACT_FLOAT32)
    first.close()
    assert not torch.backends.cudnn.allow_tf32
    second.close()
    assert torch.backends.cudnn.allow_tf32
