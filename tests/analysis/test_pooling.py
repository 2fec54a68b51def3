"""Means over blocks, whatever the length."""

import torch

from audiovae.analysis.pooling import at_frames, block_means, block_peaks


def test_a_short_last_block_is_averaged_over_what_it_has() -> None:
    values = torch.arange(10.0)[None]
    means = block_means(values, 7, 3)
    assert means.tolist() == [[1.0, 4.0, 6.0]]


def test_peaks_do_not_look_beyond_the_signal() -> None:
    values = torch.tensor([[1.0, 5.0, 2.0, 9.0]])
    assert block_peaks(values, 3, 2).tolist() == [[5.0, 2.0]]


def test_a_step_stands_for_each_frame_that_it_covers() -> None:
    assert at_frames(torch.tensor([[1.0, 2.0]]), 4, 6).tolist() == [[1, 1, 1, 1, 2, 2]]
