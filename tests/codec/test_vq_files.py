"""Compressed files of a vq model: as long as the model says, and the same symbols everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiovae.checkpoint import Model, load_model
from audiovae.codec import (
    AvaeReader,
    CodedChunk,
    DamagedChunkError,
    decode_chunks,
    encode_chunks,
    measure_chunk,
)
from audiovae.codec.code_indices import LOGIT_TIE_MARGIN, rows_and_ties, rows_asking
from audiovae.codec.group_coders import group_coder
from audiovae.codec.integers import ByteReader
from audiovae.codec.retrieval import Answers
from audiovae.coherence import Angles, angles_of_frames
from audiovae.errors import CheckpointError
from audiovae.gains import hats
from audiovae.models.bottlenecks.vq import Bottleneck
from tests.codec.files import decode_file, encode_file, header_for, some_angles
from tests.codec.second_decoder import SecondDecoder, angle_radians, gain_nats
from tests.codec.test_symbols import metadata_of
from tests.codec.tiny import conditions, lively_log_mel, without_gains
from tests.codec.tiny_vq import tiny_vq_model

OVERHEAD_BYTES = 12
"""Corrections, and what a range coder leaves at the end of a chunk."""
FRAMES = 1024


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_vq_model(tmp_path_factory.mktemp("vq"))


def coded(
    model: Model, frames: int = FRAMES, seed: int = 0, angles: Angles | None = None
) -> CodedChunk:
    log_mel = lively_log_mel(frames, seed, FRAMES)
    count = torch.tensor([frames])
    return encode_chunks(model, log_mel, count, conditions(1), angles=[angles])[0]


@pytest.mark.parametrize("frames", [1, 37, 500, 1024])
def test_the_decoder_hears_what_the_encoder_made(model: Model, frames: int) -> None:
    log_mel = lively_log_mel(frames, frames, FRAMES)
    counts = torch.tensor([frames])
    with without_gains():
        chunk = encode_chunks(model, log_mel, counts, conditions(1))[0]
    decoded, _ = decode_chunks(model, [chunk], FRAMES, conditions(1))
    with torch.no_grad():
        settled = model.vae.encode(log_mel, counts, conditions(1)).log_mel
    torch.testing.assert_close(decoded[:, :, :frames], settled[:, :, :frames], atol=1e-4, rtol=0)


def test_a_file_is_as_long_as_the_model_says(model: Model) -> None:
    chunk = coded(model)
    bits = sum(chunk.level_bits) + chunk.side_bits
    assert bits > 2000
    paid = len(chunk.payload) - chunk.corrections_bytes
    assert paid * 8 == pytest.approx(bits, rel=0.01, abs=8 * OVERHEAD_BYTES)
    assert chunk.corrections_bytes < 0.02 * len(chunk.payload) + OVERHEAD_BYTES
    measured = measure_chunk(model, chunk, 6.0)
    np.testing.assert_allclose(measured.level_bits, chunk.level_bits, rtol=1e-4)


def test_rows_cost_less_than_no_prior_at_all(model: Model) -> None:
    """The learned rows must earn their keep against indices written as they are."""
    table = group_coder(model).table
    row = table.row(3).astype(np.float64) / 2**24
    assert -(row * np.log2(row)).sum() < np.log2(len(row)) - 0.5


@pytest.mark.parametrize("seed", range(3))
def test_another_machines_floats_decode_the_same_symbols(
    model: Model, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = coded(model, seed=seed)
    expected, _ = decode_chunks(model, [chunk], FRAMES, conditions(1))
    generator = torch.Generator().manual_seed(seed)
    exact = Bottleneck.stage_logits

    def shaken(self: Bottleneck, prior: Tensor, stage: int, previous: Tensor | None) -> Tensor:
        logits = exact(self, prior, stage, previous)
        noise = torch.rand(logits.shape, generator=generator) - 0.5
        return logits + 0.9 * LOGIT_TIE_MARGIN * noise

    monkeypatch.setattr(Bottleneck, "stage_logits", shaken)
    decoded, _ = decode_chunks(model, [chunk], FRAMES, conditions(1))
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=0)


def test_rows_that_are_nearly_tied_are_asked_for() -> None:
    near = 0.4 * LOGIT_TIE_MARGIN
    logits = np.array([[0.0, near, -near], [5.0, 1.0, 0.0], [0.0, 0.0, 1.9 * LOGIT_TIE_MARGIN]])
    rows, ties = rows_and_ties(logits)
    assert rows.tolist() == [1, 0, 2]
    assert ties == {0: False, 1: True, 2: False, 6: False, 7: False, 8: True}
    turned = logits + np.array([[near, -near, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert turned[0].argmax() == 0
    asked: list[int] = []

    def answer(question: int) -> bool:
        asked.append(question)
        return ties[question]

    assert rows_asking(turned, answer).tolist() == rows.tolist()
    assert asked
    assert max(asked) < 3  # the other symbols are far enough from a tie


def test_a_second_decoder_hears_the_same(model: Model) -> None:
    """Words and rows as docs/format.md has them, without the library."""
    angles = some_angles(FRAMES, 3)
    chunk = coded(model, angles=angles)
    reader = ByteReader(chunk.payload, "a chunk")
    Answers(reader)
    gain_row, angle_row = reader.take(2)
    assert gain_row >= 16  # angles follow
    gain_row -= 16
    second = SecondDecoder(reader.take(reader.remaining))
    coder = group_coder(model)
    seen: list[np.ndarray] = []

    def read(shape: tuple[int, int, int], rows_of: object) -> np.ndarray:
        assert callable(rows_of)
        rows = rows_of(0, shape[2], lambda _question: False)
        symbols = np.zeros(shape[2], dtype=np.int32)
        for place in np.argsort(rows, kind="stable"):
            row = coder.table.row(int(rows[place])).tolist()
            symbols[place] = second.decode(row) + len(row) // 2
        seen.append(symbols)
        return symbols.reshape(shape)

    frames = torch.tensor([FRAMES])
    latents = []

    def choose(group: int, _features: Tensor, prior: Tensor) -> Tensor:
        sample = coder.restore(group, prior, read)
        latents.append(sample.latent)
        return sample.latent

    with torch.no_grad():
        log_mel = model.vae.top_down(frames, FRAMES, conditions(1), choose)
    log_mel += torch.tensor(gain_nats(second, gain_row, FRAMES))
    radians = torch.tensor(angle_radians(second, angle_row, FRAMES))
    bands = hats(8, 128, torch.device("cpu"))
    torch.testing.assert_close(radians, (bands.float().T @ angles_of_frames(angles, FRAMES)))
    expected, found = decode_chunks(model, [chunk], FRAMES, conditions(1))
    assert found[0] is not None
    np.testing.assert_array_equal(found[0], angles)
    torch.testing.assert_close(log_mel, expected, atol=1e-4, rtol=0)
    assert max(int(one.max()) for one in seen) < 16


def test_whole_files_name_their_kind(model: Model) -> None:
    data = encode_file(model, header_for(model, 600_000, num_channels=2, kind="vq"))
    with AvaeReader(data) as reader:
        assert reader.header.kind == "vq"
    decoded = decode_file(model, data)
    assert set(decoded) == {(0, 0), (1, 0), (0, 1), (1, 1)}


def test_damage_is_an_error(model: Model) -> None:
    chunk = coded(model)
    middle = len(chunk.payload) // 2
    payload = bytearray(chunk.payload)
    payload[middle] ^= 1
    broken = CodedChunk(bytes(payload), chunk.symbols_crc, chunk.num_frames)
    with pytest.raises(DamagedChunkError, match="expected"):
        decode_chunks(model, [broken], FRAMES, conditions(1))


@pytest.mark.parametrize("change", ["sum", "zero", "missing", "type"])
def test_a_damaged_table_is_refused(model: Model, tmp_path: Path, change: str) -> None:
    whole, broken = Path(model.name), tmp_path / "broken.safetensors"
    tensors = load_file(whole)
    table = tensors["codec.frequencies"]
    if change == "sum":
        table[0, 0, 0, 0] += 1
    elif change == "zero":
        table[0, 0, 0, 0], table[0, 0, 0, 1] = 0, table[0, 0, 0, :2].sum()
    elif change == "type":
        tensors["codec.frequencies"] = table.long()
    else:
        del tensors["codec.frequencies"]
    save_file(tensors, broken, metadata=metadata_of(whole))
    with pytest.raises(CheckpointError, match="damaged table"):
        load_model(broken, vocoder=None)
