"""What becomes of the latents of a file between encoding and decoding.

A move is applied to every chunk on its own, so files of any length are moved in bounded memory and
the result does not depend on how the work was cut. A move that changes along the file (a glide)
decodes a chunk at the amounts of a fixed grid and takes each frame from the two nearest, mixed in
log-mel: neighbours on one way differ too little to be heard as two voices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from audiovae.arithmetic import Along, interpolate, timbre_between, transfer
from audiovae.chunks import FrameRange
from audiovae.latents import Latents
from audiovae.models.hvae import HVAE
from audiovae.timbre.detail import decode_with_detail, with_detail
from audiovae.timbre.loudness import as_loud
from audiovae.timbre.value import Timbre

Curve = Literal["linear", "ease", "spherical"]
"""How a way is travelled: evenly, slowly at both ends, or evenly along the sphere's arc."""

_KNOTS = 8  # amounts a glide is decoded at, from 0 to 1


class Place(Protocol):
    """Where a row of a batch comes from."""

    @property
    def channel(self) -> int:
        """Which coded channel of the file."""

    @property
    def frames(self) -> FrameRange:
        """Which frames of the file."""


class Move(Protocol):
    """Decodes the latents of chunks, moved."""

    def decode(
        self, vae: HVAE, latents: Latents, log_mel: Tensor, places: Sequence[Place]
    ) -> Tensor:
        """Move latents, and decode them.

        Args:
            vae: That made them.
            latents: Of a batch of chunks.
            log_mel: `[batch, mel, frame]`, what they were made of.
            places: Of the first rows of the batch; the others are padding.

        Returns:
            `[batch, mel, frame]`, natural log of magnitude.
        """
        ...


@dataclass(frozen=True)
class Course:
    """How far on its way each frame of a file is.

    Attributes:
        start: Amount at the first frame.
        stop: Amount at frame `num_frames`, and after it.
        num_frames: Length of the glide; 0 for a file that is `stop` throughout.
        curve: How it is travelled.
    """

    start: float = 1.0
    stop: float = 1.0
    num_frames: int = 0
    curve: Curve = "linear"

    @property
    def along(self) -> Along:
        """The way between two vectors."""
        return "arc" if self.curve == "spherical" else "line"

    @property
    def is_at_rest(self) -> bool:
        """Whether the whole file is where it was."""
        return self.stop == 0 and (self.start == 0 or not self.num_frames)

    def amounts(self, frames: FrameRange) -> Tensor:
        """`[frame]`: how far each of some frames of the file is."""
        places = torch.arange(frames.start, frames.stop) / max(1, self.num_frames)
        way = spaced(
            places.clamp(max=1.0) if self.num_frames else torch.ones(len(frames)), self.curve
        )
        return self.start + (self.stop - self.start) * way


def spaced(position: Tensor, curve: Curve) -> Tensor:
    """Positions on a way, 0 to 1, as `curve` travels it."""
    return position.square() * (3 - 2 * position) if curve == "ease" else position


@dataclass(frozen=True)
class TimbreMove:
    """The content stays; the timbre goes to a target.

    Attributes:
        target: Where an amount of 1 is.
        course: How far to go, and when.
        origin: Where an amount of 0 is; None for each chunk's own timbre.
        levels: Levels whose mean moves besides the code; None as `arithmetic.transfer` does.
        keep_loudness: Let every half second stay as loud as it was.
    """

    target: Timbre
    course: Course = Course()
    origin: Timbre | None = None
    levels: tuple[int, ...] | None = None
    keep_loudness: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves, so that this is the plain resynthesis."""
        return self.course.is_at_rest and self.origin is None

    def decode(
        self, vae: HVAE, latents: Latents, log_mel: Tensor, places: Sequence[Place]
    ) -> Tensor:
        """As `Move` says."""
        decoded = _decode_on(
            self.course, vae, log_mel.shape[2], places, lambda a: self._at(latents, a)
        )
        if not self.keep_loudness:
            return decoded
        return as_loud(decoded, log_mel, latents.num_frames, vae.config.spectrogram)

    def _at(self, latents: Latents, amount: float) -> Latents:
        along = self.course.along
        if self.origin is None:
            return transfer(latents, self.target, amount, levels=self.levels, along=along)
        goal = timbre_between(self.origin, self.target, amount, along)
        return transfer(latents, goal, levels=self.levels)


@dataclass(frozen=True)
class BlendMove:
    """Everything goes to another sound of the same length.

    Attributes:
        other: `[channel, mel, frame]`, log-mel of the sound where an amount of 1 is.
        course: How far to go, and when.
        levels: The levels that move besides the code; None for all.
        keep_loudness: Let every half second stay as loud as it was.
    """

    other: Tensor
    course: Course = Course()
    levels: tuple[int, ...] | None = None
    keep_loudness: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves, so that this is the plain resynthesis."""
        return self.course.is_at_rest

    def decode(
        self, vae: HVAE, latents: Latents, log_mel: Tensor, places: Sequence[Place]
    ) -> Tensor:
        """As `Move` says."""
        other = torch.zeros_like(log_mel)
        for row, place in enumerate(places):
            cut = self.other[place.channel, :, place.frames.start : place.frames.stop]
            other[row, :, : cut.shape[1]] = cut
        conditions = replace(latents.conditions, timbre=None)
        output = vae.encode(other, latents.num_frames, conditions)
        there = replace(with_detail(vae, other, output), model_id=latents.model_id)
        course, levels = self.course, self.levels

        def at(amount: float) -> Latents:
            return interpolate(latents, there, amount, levels=levels, along=course.along)

        decoded = _decode_on(course, vae, log_mel.shape[2], places, at)
        if not self.keep_loudness:
            return decoded
        return as_loud(decoded, log_mel, latents.num_frames, vae.config.spectrogram)


def _decode_on(
    course: Course,
    vae: HVAE,
    num_frames: int,
    places: Sequence[Place],
    at: Callable[[float], Latents],
) -> Tensor:
    """Decode a batch whose latents are `at(amount)`, each frame as far as it is on its course."""
    if not course.num_frames:
        return decode_with_detail(vae, at(course.stop), num_frames)
    num_rows = at(course.stop).batch_size
    on_course = [course.amounts(place.frames) for place in places]
    low = min(float(one.min()) for one in on_course)
    high = max(float(one.max()) for one in on_course)
    amounts = torch.full((num_rows, num_frames), low)
    for row, one in enumerate(on_course):
        amounts[row, : len(one)] = one
    total: Tensor | None = None
    for knot in range(math.floor(low * _KNOTS), math.ceil(high * _KNOTS) + 1):
        decoded = decode_with_detail(vae, at(knot / _KNOTS), num_frames)
        nearness = (1 - (amounts * _KNOTS - knot).abs()).clamp(min=0).to(decoded)
        part = nearness[:, None] * decoded
        total = part if total is None else total + part
    assert total is not None
    return total
