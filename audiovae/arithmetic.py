"""Arithmetic on latents: between, towards, by as much as.

Pure functions. All that they are given must come from one model; results keep the conditions of
their first argument. An amount of 0 gives the first argument itself, 1 the other end, and what
lies below 0 or above 1 goes on along the same line. Where `levels` can be given, they are the
levels that move besides the timbre code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from audiovae.errors import ShapeError
from audiovae.latents import Latents
from audiovae.timbre.value import Timbre, mean_timbre, signal_masks, timbre_of, time_means

Along = Literal["line", "arc"]
"""The way from one vector to another: straight, or on the sphere, where lengths do not dip."""

_PARALLEL_SINE = 1e-4  # below it the arc is the line, to float32's precision


def interpolate(
    first: Latents,
    second: Latents,
    amount: float,
    *,
    levels: Collection[int] | None = None,
    along: Along = "line",
) -> Latents:
    """Latents on the way from one sound to another of the same shape.

    Args:
        first: Where an amount of 0 is.
        second: Where an amount of 1 is.
        amount: How far to go.
        levels: The levels that move besides the timbre code; None for all of them.
        along: The way to take.

    Raises:
        ModelMismatchError: If they were made with different weights.
        ShapeError: If their shapes differ, or there is no such level.
    """
    _require_alike(first, second)
    moving = _known_levels(first, first.levels if levels is None else levels)
    if amount == 0:
        return first
    groups = tuple(
        _between(a, b, amount, along, dims=(1, 2)) if level in moving else a
        for a, b, level in zip(first.groups, second.groups, first.levels, strict=True)
    )
    between = _changed(first, groups, _moved_code(first, second.timbre, amount, along), second)
    details = [one.weighed(1 - amount) for one in first.details]
    details += [one.weighed(amount) for one in second.details]
    return replace(between, details=tuple(one for one in details if one.weight))


def transfer(
    source: Latents,
    target: Latents | Timbre,
    amount: float = 1.0,
    *,
    levels: Collection[int] | None = None,
    along: Along = "line",
) -> Latents:
    """Move the timbre of one sound towards that of another, and leave its content.

    The timbre code goes to the target's. Of `levels` only the mean over time moves, as far as the
    target's lies away; for a model without a code that is the plain way, which moves pitch and
    content too where the model has not kept them apart.

    Args:
        source: The sound whose content stays; each chunk is moved from where it is.
        target: A sound of any shape, or a timbre.
        amount: How far to go: 1 arrives, so doing it twice is doing it once.
        levels: The levels that move besides the code; None for none, or for a model without a
            code the coarser half.
        along: The way the code takes.

    Raises:
        ModelMismatchError: If they were made with different weights.
        ShapeError: If there is no such level.
    """
    goal = timbre_of(target) if isinstance(target, Latents) else target
    _require_fitting(source, goal)
    moving = _known_levels(source, goal.own_levels if levels is None else levels)
    if amount == 0:
        return source
    pairs = zip(goal.group_means, time_means(source), strict=True)
    shifts = [there.to(here) - here for there, here in pairs]
    groups = _shifted(source, shifts, amount, moving)
    return _changed(source, groups, _moved_code(source, goal.code, amount, along))


def attribute_vector(
    group_a: Sequence[Latents | Timbre], group_b: Sequence[Latents | Timbre]
) -> Timbre:
    """The way from the mean of one group of sounds to the mean of another.

    Raises:
        ModelMismatchError: If they were made with different weights.
        ShapeError: If a group is empty.
    """
    mean_a, mean_b = (
        mean_timbre([timbre_of(one) if isinstance(one, Latents) else one for one in group])
        for group in (group_a, group_b)
    )
    return mean_b.plus(mean_a, -1.0)


def timbre_between(first: Timbre, second: Timbre, amount: float, along: Along = "line") -> Timbre:
    """A timbre on the way from one to another.

    Raises:
        ModelMismatchError: If they were measured with different weights.
    """
    straight = first.plus(second.plus(first, -1.0), amount)
    if first.code is None or second.code is None or along == "line":
        return straight
    return replace(straight, code=_between(first.code, second.code, amount, along, dims=(0,)))


def apply(
    latents: Latents, vector: Timbre, amount: float = 1.0, *, levels: Collection[int] | None = None
) -> Latents:
    """Add a direction, from `attribute_vector`, to the timbre of a sound.

    Args:
        latents: The sound.
        vector: The direction.
        amount: How many times to add it.
        levels: As in `transfer`.

    Raises:
        ModelMismatchError: If they were made with different weights.
        ShapeError: If there is no such level.
    """
    _require_fitting(latents, vector)
    moving = _known_levels(latents, vector.own_levels if levels is None else levels)
    if amount == 0:
        return latents
    code = latents.timbre
    if code is not None and vector.code is not None:
        code = code + amount * vector.code.to(code)
    groups = _shifted(latents, vector.group_means, amount, moving)
    return _changed(latents, groups, code)


def swap_levels(first: Latents, second: Latents, levels: Collection[int]) -> Latents:
    """The first sound with some of its levels taken from a second one of the same shape.

    Raises:
        ModelMismatchError: If they were made with different weights.
        ShapeError: If their shapes differ, or there is no such level.
    """
    _require_alike(first, second)
    taken = _known_levels(first, levels)
    groups = tuple(
        b if level in taken else a
        for a, b, level in zip(first.groups, second.groups, first.levels, strict=True)
    )
    return _changed(first, groups, first.timbre, second)


def add(first: Latents, second: Latents) -> Latents:
    """The sum of two sounds of the same shape, as a mixture sounds.

    The latents add; the timbre code of a mixture lies between those of its parts.

    Raises:
        ModelMismatchError: If they were made with different weights.
        ShapeError: If their shapes differ.
    """
    return scale(mean([first, second]), 2.0)


def scale(latents: Latents, factor: float) -> Latents:
    """Every latent times a factor, as a louder or softer sound: its timbre stays."""
    groups = tuple(factor * group for group in latents.groups)
    scaled = _changed(latents, groups, latents.timbre)
    details = [one.louder(math.log(factor)) for one in latents.details] if factor > 0 else []
    return replace(scaled, details=tuple(details))


def mean(sounds: Sequence[Latents]) -> Latents:
    """The mean of sounds of the same shape, timbre codes included.

    Raises:
        ModelMismatchError: If they were made with different weights.
        ShapeError: If their shapes differ, or there is none.
    """
    if not sounds:
        raise ShapeError("expected at least one sound to take the mean of, got none")
    first = sounds[0]
    for sound in sounds[1:]:
        _require_alike(first, sound)
    groups = tuple(
        torch.stack(parts).mean(dim=0)
        for parts in zip(*(sound.groups for sound in sounds), strict=True)
    )
    codes = [sound.timbre for sound in sounds if sound.timbre is not None]
    code = torch.stack(codes).mean(dim=0) if codes else None
    num_frames = torch.stack([sound.num_frames for sound in sounds]).amax(dim=0)
    softer = -math.log(len(sounds))  # as loud as each is in the mixture
    details = tuple(one.louder(softer) for sound in sounds for one in sound.details)
    return replace(_changed(first, groups, code), num_frames=num_frames, details=details)


def _require_alike(first: Latents, second: Latents) -> None:
    second.require_model(first.model_id)
    shapes = [[list(group.shape) for group in one.groups] for one in (first, second)]
    if shapes[0] != shapes[1]:
        raise ShapeError(
            f"expected latents of one shape, got {shapes[0]} and {shapes[1]}; "
            "use transfer, which takes sounds of any length, or cut them to one length"
        )


def _require_fitting(latents: Latents, timbre: Timbre) -> None:
    timbre.require_model(latents.model_id)
    sizes = [group.shape[1] for group in latents.groups], [len(m) for m in timbre.group_means]
    codes = [None if one is None else one.shape[-1] for one in (latents.timbre, timbre.code)]
    if sizes[0] != sizes[1] or codes[0] != codes[1]:
        raise ShapeError(
            f"expected a timbre of {sizes[0]} channels and a code of {codes[0]}, got {sizes[1]} "
            f"and {codes[1]}; measure it again with this model"
        )


def _known_levels(latents: Latents, levels: Collection[int]) -> frozenset[int]:
    unknown = sorted(set(levels) - set(latents.levels))
    if unknown:
        raise ShapeError(
            f"expected levels from 0 (coarsest) to {max(latents.levels)}, got {unknown[0]}; "
            "name levels the model has"
        )
    return frozenset(levels)


def _shifted(
    latents: Latents, shifts: Sequence[Tensor], amount: float, moving: frozenset[int]
) -> tuple[Tensor, ...]:
    """The groups of `moving` levels, shifted all along the signal by `[.., channel]` each."""
    groups = []
    parts = zip(latents.groups, shifts, signal_masks(latents), latents.levels, strict=True)
    for group, shift, mask, level in parts:
        step = (amount * shift.to(group))[..., None]  # [.., channel, 1]
        groups.append(group + step * mask if level in moving else group)
    return tuple(groups)


def _moved_code(source: Latents, goal: Tensor | None, amount: float, along: Along) -> Tensor | None:
    """`[batch, channel]` of the codes on the way to `goal`, `[.., channel]`."""
    code = source.timbre
    if code is None or goal is None:
        return code
    return _between(code, goal.to(code).expand_as(code), amount, along, dims=(1,))


def _between(
    start: Tensor, end: Tensor, amount: float, along: Along, dims: tuple[int, ...]
) -> Tensor:
    """A point on the way from `start` to `end`, whose vectors lie along `dims`."""
    if along == "line":
        return torch.lerp(start, end, amount)
    lengths = [torch.linalg.vector_norm(one, dim=dims, keepdim=True) for one in (start, end)]
    product = (start * end).sum(dim=dims, keepdim=True) / (lengths[0] * lengths[1])
    angle = torch.acos(product.clamp(-1.0, 1.0))
    sine = torch.sin(angle)
    arc = torch.sin((1 - amount) * angle) / sine * start + torch.sin(amount * angle) / sine * end
    # Opposite or parallel vectors, and zeros, span no arc.
    return torch.where(sine > _PARALLEL_SINE, arc, torch.lerp(start, end, amount))


def _changed(
    first: Latents, groups: tuple[Tensor, ...], code: Tensor | None, second: Latents | None = None
) -> Latents:
    """`first` with other latents, covering what either sound covers."""
    num_frames = first.num_frames
    if second is not None:
        num_frames = torch.maximum(num_frames, second.num_frames)
    conditions = replace(first.conditions, timbre=code)
    return replace(first, groups=groups, num_frames=num_frames, conditions=conditions)
