"""`audiovae.chunks`: every frame once, and no seam."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovae.chunks import (
    CHUNK_FRAMES,
    OVERLAP_FRAMES,
    SHAPES_FRAMES,
    STEP_FRAMES,
    batch_rows,
    batches_by_shape,
    chunk_range,
    core_range,
    crossfade,
    num_chunks,
    pad_frames,
    padded_frames,
    stitch,
)
from audiovae.config import ModelConfig
from audiovae.errors import ShapeError
from audiovae.latents import Conditions
from audiovae.spectrogram import log_mel_spectrogram
from tests.small_models import tiny_vae
from tests.tones import chirp, noise

frame_counts = st.integers(1, 20 * CHUNK_FRAMES)


@given(num_frames=frame_counts)
def test_cores_cover_every_frame_exactly_once(num_frames: int) -> None:
    cores = [core_range(i, num_frames) for i in range(num_chunks(num_frames))]
    assert cores[0].start == 0
    assert cores[-1].stop == num_frames
    assert all(len(core) > 0 for core in cores)
    assert all(a.stop == b.start for a, b in pairwise(cores))


@given(num_frames=frame_counts)
def test_chunks_overlap_by_the_cross_fade_and_hold_their_cores(num_frames: int) -> None:
    chunks = [chunk_range(i, num_frames) for i in range(num_chunks(num_frames))]
    assert (chunks[0].start, chunks[-1].stop) == (0, num_frames)
    for index, chunk in enumerate(chunks):
        core = core_range(index, num_frames)
        assert chunk.start == core.start == index * STEP_FRAMES
        assert core.stop <= chunk.stop
        assert len(chunk) <= CHUNK_FRAMES
    for before, after in pairwise(chunks):
        assert before.stop - after.start == OVERLAP_FRAMES
        assert len(after) > OVERLAP_FRAMES


@given(num_frames=st.integers(1, CHUNK_FRAMES))
def test_shapes_hold_their_chunk_and_whole_coarse_steps(num_frames: int) -> None:
    shape = padded_frames(num_frames)
    assert shape >= num_frames
    assert shape == min(s for s in SHAPES_FRAMES if s >= num_frames)
    assert shape % ModelConfig().vae.total_stride == 0


@settings(max_examples=15, deadline=None)
@given(num_frames=st.integers(1, 5 * CHUNK_FRAMES), data=st.data())
def test_stitching_consistent_chunks_gives_the_signal_back(
    num_frames: int, data: st.DataObject
) -> None:
    signal = torch.randn(2, num_frames, generator=torch.Generator().manual_seed(num_frames))
    first = data.draw(st.integers(0, num_chunks(num_frames) - 1))
    last = data.draw(st.integers(first + 1, num_chunks(num_frames)))
    ranges = [chunk_range(i, num_frames) for i in range(first, last)]
    stitched = stitch([signal[:, r.start : r.stop] for r in ranges], first, num_frames)
    expected = signal[:, ranges[0].start : ranges[-1].stop]
    torch.testing.assert_close(stitched, expected, rtol=0, atol=1e-6)


def test_the_cross_fade_begins_left_and_ends_right() -> None:
    faded = crossfade(torch.zeros(1, OVERLAP_FRAMES), torch.ones(1, OVERLAP_FRAMES))[0]
    assert (faded.diff() > 0).all()
    assert float(faded[0]) < 1 / OVERLAP_FRAMES
    torch.testing.assert_close(faded + faded.flip(0), torch.ones(OVERLAP_FRAMES))


def test_no_seam_can_be_measured_in_a_decoded_long_signal() -> None:
    """The decoder is random, so neighbours disagree as much as they ever will."""
    model = tiny_vae()
    samples = chirp(2600 * 512) + noise(2600 * 512, level=0.02)
    log_mel = log_mel_spectrogram(samples[None], model.config.spectrogram)
    total = log_mel.shape[2]
    decoded = []
    for index in range(num_chunks(total)):
        frames = chunk_range(index, total)
        count = torch.tensor([len(frames)])
        chunk = pad_frames(log_mel[:, :, frames.start : frames.stop], padded_frames(len(frames)))
        output = model.encode(chunk, count, Conditions(torch.tensor([6.0])))
        decoded.append(output.log_mel[0, :, : len(frames)])
    assert num_chunks(total) == 3
    jumps = stitch(decoded, 0, total).diff(dim=1).abs().mean(dim=0)  # [frame - 1]
    for seam in range(STEP_FRAMES, total - OVERLAP_FRAMES, STEP_FRAMES):
        faded = slice(seam - 1, seam + OVERLAP_FRAMES)
        beside = torch.cat([jumps[seam - 200 : seam - 1], jumps[seam + OVERLAP_FRAMES :][:200]])
        assert jumps[faded].max() <= beside.max()
        assert jumps[faded].mean() <= 1.1 * beside.mean()


def test_a_disagreement_is_spread_over_the_whole_cross_fade() -> None:
    total = CHUNK_FRAMES + STEP_FRAMES
    stitched = stitch([torch.zeros(1, CHUNK_FRAMES), torch.ones(1, CHUNK_FRAMES)], 0, total)
    assert float(stitched.diff().abs().max()) == pytest.approx(1 / OVERLAP_FRAMES)


@given(
    shapes=st.lists(st.sampled_from(SHAPES_FRAMES), max_size=60),
    batch_frames=st.sampled_from([64, 1024, 4096]),
)
def test_batches_hold_every_chunk_once_in_batches_of_one_shape(
    shapes: list[int], batch_frames: int
) -> None:
    batches = list(batches_by_shape(shapes, batch_frames))
    assert sorted(i for _, indices in batches for i in indices) == list(range(len(shapes)))
    for shape, indices in batches:
        assert all(shapes[i] == shape for i in indices)
        assert 1 <= len(indices) <= batch_rows(shape, batch_frames)


def test_padding_is_zero_behind_the_signal() -> None:
    padded = pad_frames(torch.ones(2, 3), 5)
    assert padded.tolist() == [[1, 1, 1, 0, 0]] * 2


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="at most 1024"):
        padded_frames(CHUNK_FRAMES + 1)
    with pytest.raises(ShapeError, match="at most 2 frames"):
        pad_frames(torch.ones(2, 3), 2)
    with pytest.raises(ShapeError, match="at least one frame"):
        num_chunks(0)
