"""Compressed files as wholes: their header, and their chunks from the spans they were coded in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiovae.audio import AudioInfo
from audiovae.checkpoint import Model
from audiovae.codec import AvaeHeader, AvaeWriter, CodedChunk
from audiovae.errors import CheckpointError, ConfigError, ModelMismatchError
from audiovae.pretrained import find_checkpoint

_MAX_NAME_CHARACTERS = 32


def file_header(
    model: Model,
    info: AudioInfo,
    sources: tuple[int, ...],
    log_lambda: float | None,
    quality: int,
) -> AvaeHeader:
    """The header of a file to be.

    Args:
        model: That codes it.
        info: Of the source.
        sources: For each channel the channel that is stored for it.
        log_lambda: Condition it is coded under.
        quality: Step of the scale that was asked for, 0 if a size was.
    """
    return AvaeHeader(
        sample_rate=info.sample_rate,
        num_channels=info.num_channels,
        num_samples=info.num_samples,
        bit_depth=info.bit_depth,
        model_id=model.id,
        model_name=_name_hint(model.name),
        quality=quality,
        log_lambda=None if log_lambda is None else float(np.float32(log_lambda)),
        channel_sources=sources,
        kind=model.config.bottleneck.kind,
    )


def _name_hint(name: str) -> str:
    """A model's name without its path, as the header can hold it."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).stem)
    return stem.lstrip(".")[:_MAX_NAME_CHARACTERS]


def quality_lambda(model: Model, quality: int) -> float | None:
    """Log lambda of a quality; None for a model that is not conditioned on it.

    Raises:
        ConfigError: If the model's scale has no such quality.
    """
    if not model.quality_scale:
        return None
    for point in model.quality_scale:
        if point.quality == quality:
            return point.log_lambda
    known = [point.quality for point in model.quality_scale]
    raise ConfigError(
        f"expected a quality from {min(known)} to {max(known)}, got {quality}; "
        "1 is the smallest file, 8 the best sound"
    )


def write_spans(
    destination: Path,
    header: AvaeHeader,
    spans: Iterable[tuple[tuple[int, ...], Sequence[CodedChunk]]],
) -> None:
    """Write a file from its spans, each with the channels that were coded in it, in order."""
    with AvaeWriter(destination, header) as writer:
        for channel_of, chunks in spans:
            for chunk in _stored_chunks(chunks, channel_of, header.channel_sources):
                writer.append(chunk)


def _stored_chunks(
    chunks: Sequence[CodedChunk], channel_of: tuple[int, ...], sources: tuple[int, ...]
) -> Iterable[CodedChunk]:
    """The chunks of a span for every channel that the file stores.

    Two channels that are the same in this span only share one code, stored for both.
    """
    by_place = {(chunk.index, chunk.channel): chunk for chunk in chunks}
    for index in sorted({chunk.index for chunk in chunks}):
        for channel in sorted(set(sources)):
            yield replace(by_place[index, channel_of[channel]], channel=channel)


def find_model_name(header: AvaeHeader) -> str:
    """Name of the shipped model that a file asks for by name; its id is checked when it decodes.

    Raises:
        ModelMismatchError: If no model of that name ships with this version.
    """
    try:
        find_checkpoint(header.model_name or "(no name)")
    except CheckpointError:
        raise ModelMismatchError(
            f"expected model {header.model_name or 'without a name'} (id {header.model_id}) to "
            "decode this file with, found no model of that name; give its file with --checkpoint"
        ) from None
    return header.model_name
