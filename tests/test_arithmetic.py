"""Arithmetic on latents: identities, ends, and what is refused. No network is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from audiovae.arithmetic import (
    Along,
    add,
    apply,
    attribute_vector,
    interpolate,
    mean,
    scale,
    swap_levels,
    timbre_between,
    transfer,
)
from audiovae.errors import ModelMismatchError, ShapeError
from audiovae.latents import Conditions, Latents, join_latents
from audiovae.timbre.value import mean_timbre, timbre_of, time_means

TOLERANCE = 1e-5
FRAMES = 64
LEVELS, STRIDES = (0, 1, 1), (16, 4, 4)


def sound(
    seed: int, frames: tuple[int, ...] = (64, 30), *, has_code: bool = True, padded: int = FRAMES
) -> Latents:
    draw = torch.Generator().manual_seed(seed)
    num_frames = torch.tensor(frames)
    groups = []
    for stride in STRIDES:
        group = torch.randn(len(frames), 3, padded // stride, generator=draw)
        covered = stride * torch.arange(padded // stride) < num_frames[:, None]
        groups.append(group * covered[:, None])
    code = torch.randn(len(frames), 5, generator=draw) if has_code else None
    lambdas = torch.zeros(len(frames))
    return Latents(tuple(groups), LEVELS, STRIDES, num_frames, Conditions(lambdas, code), "m")


def assert_same(first: Latents, second: Latents, tolerance: float = 0.0) -> None:
    for a, b in zip(first.groups, second.groups, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
    assert (first.timbre is None) == (second.timbre is None)
    if first.timbre is not None:
        torch.testing.assert_close(first.timbre, second.timbre, rtol=0, atol=tolerance)
    assert torch.equal(first.num_frames, second.num_frames)


A, B = sound(0), sound(1)


@pytest.mark.parametrize("has_code", [True, False])
def test_nothing_moves_at_amount_0(has_code: bool) -> None:
    a, b = sound(0, has_code=has_code), sound(1, has_code=has_code)
    vector = attribute_vector([a], [b])
    for moved in (transfer(a, b, 0.0), interpolate(a, b, 0.0), apply(a, vector, 0.0)):
        assert_same(moved, a)


@pytest.mark.parametrize("along", ["line", "arc"])
def test_amount_1_is_the_other_end(along: Along) -> None:
    assert_same(interpolate(A, B, 1.0, along=along), B, TOLERANCE)
    assert transfer(A, B, 1.0, along=along).timbre == pytest.approx(
        timbre_of(B).code.expand(2, 5), abs=TOLERANCE
    )


@pytest.mark.parametrize("along", ["line", "arc"])
@pytest.mark.parametrize("amount", [-0.5, 0.3, 1.7])
def test_a_sound_lies_on_the_way_to_itself(along: Along, amount: float) -> None:
    assert_same(interpolate(A, A, amount, along=along), A, TOLERANCE)
    alone = sound(0, (64,))
    assert_same(transfer(alone, alone, amount, along=along), alone, TOLERANCE)


@pytest.mark.parametrize("has_code", [True, False])
def test_twice_is_once(has_code: bool) -> None:
    a, b = sound(0, has_code=has_code), sound(1, has_code=has_code)
    once = transfer(a, b)
    assert_same(transfer(once, b), once, TOLERANCE)
    assert_same(transfer(once, a), transfer(a, a), TOLERANCE)


def test_amounts_beyond_go_on_along_the_line() -> None:
    for amount in (-1.0, 2.5):
        expected = A.groups[0] + amount * (B.groups[0] - A.groups[0])
        torch.testing.assert_close(interpolate(A, B, amount).groups[0], expected)
    code = timbre_of(B).code
    torch.testing.assert_close(transfer(A, B, 2.0).timbre, A.timbre + 2.0 * (code - A.timbre))


def test_the_code_moves_and_the_content_stays() -> None:
    moved = transfer(A, B)
    assert all(torch.equal(a, b) for a, b in zip(moved.groups, A.groups, strict=True))
    assert not torch.equal(moved.timbre, A.timbre)


def test_without_a_code_the_mean_of_the_coarse_levels_moves() -> None:
    a, b = sound(0, has_code=False), sound(1, (64,), has_code=False)
    moved = transfer(a, b)
    torch.testing.assert_close(time_means(moved)[0], timbre_of(b).group_means[0].expand(2, 3))
    assert torch.equal(moved.groups[1], a.groups[1])
    padding = moved.groups[0][1, :, 2:]  # its 30 frames are two steps of 16
    assert torch.equal(padding, torch.zeros_like(padding))


def test_levels_say_what_moves() -> None:
    moved = transfer(A, B, levels=(1,))
    assert torch.equal(moved.groups[0], A.groups[0])
    assert not torch.equal(moved.groups[1], A.groups[1])
    between = interpolate(A, B, 0.5, levels=())
    assert torch.equal(between.groups[1], A.groups[1])
    assert not torch.equal(between.timbre, A.timbre)


def test_swapped_levels_are_those_of_the_other() -> None:
    swapped = swap_levels(A, B, (1,))
    assert torch.equal(swapped.groups[0], A.groups[0])
    assert torch.equal(swapped.groups[2], B.groups[2])
    assert torch.equal(swapped.timbre, A.timbre)


def test_an_attribute_is_the_difference_of_two_groups() -> None:
    brighter = apply(A, attribute_vector([A], [B]), 1.0)
    expected = A.timbre + timbre_of(B).code - timbre_of(A).code
    torch.testing.assert_close(brighter.timbre, expected)
    back = apply(brighter, attribute_vector([A], [B]), -1.0)
    assert_same(back, A, TOLERANCE)
    mixed = attribute_vector([timbre_of(A), A], [B])
    torch.testing.assert_close(mixed.code, attribute_vector([A], [B]).code)


def test_the_arc_keeps_the_length_of_vectors() -> None:
    unit = [replace(s, conditions=Conditions(None, s.timbre / s.timbre.norm(dim=1, keepdim=True)))
            for s in (A, B)]  # fmt: skip
    between = interpolate(*unit, 0.5, along="arc").timbre
    torch.testing.assert_close(between.norm(dim=1), torch.ones(2))
    assert (interpolate(*unit, 0.5).timbre.norm(dim=1) < 1 - TOLERANCE).all()


def test_latents_add_and_scale_and_the_code_is_shared() -> None:
    total = add(A, B)
    assert_same(total, add(B, A))
    torch.testing.assert_close(total.groups[1], A.groups[1] + B.groups[1])
    torch.testing.assert_close(total.timbre, (A.timbre + B.timbre) / 2)
    louder = scale(A, 3.0)
    torch.testing.assert_close(louder.groups[1], 3.0 * A.groups[1])
    assert torch.equal(louder.timbre, A.timbre)


def test_a_mean_weighs_every_sound_alike() -> None:
    third = sound(2)
    middle = mean([A, B, third])
    torch.testing.assert_close(middle.groups[0], (A.groups[0] + B.groups[0] + third.groups[0]) / 3)
    torch.testing.assert_close(middle.timbre, (A.timbre + B.timbre + third.timbre) / 3)
    assert_same(mean([A]), A)
    assert_same(interpolate(A, B, 0.5), mean([A, B]), TOLERANCE)


def test_a_sum_covers_what_either_covers() -> None:
    assert add(sound(0, (64, 30)), sound(1, (10, 40))).num_frames.tolist() == [64, 40]


def test_timbres_have_a_way_between_them() -> None:
    a, b = timbre_of(A), timbre_of(B)
    assert timbre_between(a, b, 0.0).code.tolist() == a.code.tolist()
    torch.testing.assert_close(timbre_between(a, b, 1.0, "arc").code, b.code)
    torch.testing.assert_close(timbre_between(a, b, 0.5).code, mean_timbre([a, b]).code)


def test_chunks_count_by_their_frames() -> None:
    whole = timbre_of(A).code
    parts = [A.rows([i], FRAMES) for i in range(2)]
    expected = (64 * parts[0].timbre[0] + 30 * parts[1].timbre[0]) / 94
    torch.testing.assert_close(whole, expected)
    assert_same(join_latents(parts), A)


def test_padding_does_not_change_a_timbre() -> None:
    longer = A.rows([0, 1], 2 * FRAMES)
    for mean_before, mean_after in zip(
        timbre_of(A).group_means, timbre_of(longer).group_means, strict=True
    ):
        torch.testing.assert_close(mean_before, mean_after)
    assert_same(longer.rows([0, 1], FRAMES), A)


def test_two_models_never_mix() -> None:
    other = replace(B, model_id="n")
    for mixing in (
        lambda: interpolate(A, other, 0.0),
        lambda: transfer(A, other, 0.0),
        lambda: transfer(A, timbre_of(other)),
        lambda: apply(A, timbre_of(other)),
        lambda: attribute_vector([A], [other]),
        lambda: swap_levels(A, other, ()),
        lambda: add(A, other),
        lambda: mean([A, other]),
        lambda: join_latents([A, other]),
    ):
        with pytest.raises(ModelMismatchError, match=r"expected .* of model [mn], got .* [mn]; "):
            mixing()


def test_shapes_and_levels_are_checked() -> None:
    with pytest.raises(ShapeError, match="use transfer, which takes sounds of any length"):
        interpolate(A, sound(1, (64,)), 0.5)
    with pytest.raises(ShapeError, match=r"expected levels from 0 \(coarsest\) to 1, got 2"):
        transfer(A, B, levels=(0, 2))
    for misfit in (replace(timbre_of(B), code=torch.ones(4)), timbre_of(sound(1, has_code=False))):
        with pytest.raises(ShapeError, match="measure it again with this model"):
            transfer(A, misfit)
        with pytest.raises(ShapeError, match="measure it again with this model"):
            apply(A, misfit, 0.0)
    with pytest.raises(ShapeError, match="at least one timbre"):
        attribute_vector([], [A])
    with pytest.raises(ShapeError, match="at least one sound"):
        mean([])
