"""Whole compressed files of a tiny model, made, decoded and mutated."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.chunks import padded_frames
from audiovae.codec import AvaeHeader, AvaeReader, AvaeWriter, decode_chunks, encode_chunks
from audiovae.codec.container import MAGIC, VERSION
from audiovae.codec.integers import ByteReader, write_varint
from audiovae.coherence import MAX_STEPS, Angles
from audiovae.errors import AudioVAEError
from audiovae.gains import NUM_BANDS, num_blocks
from tests.codec.tiny import conditions, lively_log_mel

LOG_LAMBDA = 6.0


def header_for(model: Model, num_samples: int, **fields: object) -> AvaeHeader:
    facts: dict[str, object] = {
        "sample_rate": 44_100,
        "num_channels": 1,
        "num_samples": num_samples,
        "bit_depth": 16,
        "model_id": model.id,
        "model_name": model.config.name,
        "quality": 4,
        "log_lambda": LOG_LAMBDA,
    }
    return AvaeHeader(**{**facts, **fields})  # type: ignore[arg-type]


def encode_file(model: Model, header: AvaeHeader, seed: int = 0) -> bytes:
    """A file of random sound; each channel has its own."""
    stream = io.BytesIO()
    with AvaeWriter(stream, header) as writer:
        for index in range(header.num_chunks):
            frames = header.chunk_frames(index)
            for channel in header.coded_channels:
                log_mel = lively_log_mel(
                    frames, seed + 1000 * channel + index, padded_frames(frames)
                )
                angles = None if channel == 0 else some_angles(frames, seed + channel + index)
                writer.append(
                    encode_chunks(
                        model, log_mel, torch.tensor([frames]), conditions(1), angles=[angles]
                    )[0]
                )
    return stream.getvalue()


def some_angles(frames: int, seed: int) -> Angles:
    """Angles `[band, block]` that change by little."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(-1, 2, size=(NUM_BANDS, num_blocks(frames)))
    return np.clip(4 + np.cumsum(steps, axis=1), 0, MAX_STEPS).astype(np.int32)


def decode_file(model: Model, data: bytes) -> dict[tuple[int, int], Tensor]:
    """Log-mel of every chunk of every channel."""
    decoded = {}
    with AvaeReader(data) as reader:
        reader.require_model(model)
        header = reader.header
        for index in range(header.num_chunks):
            for channel in range(header.num_channels):
                chunk = reader.read_chunk(channel, index)
                under = conditions(1, header.log_lambda or 0.0)
                log_mel, _ = decode_chunks(model, [chunk], padded_frames(chunk.num_frames), under)
                decoded[channel, index] = log_mel[0, :, : chunk.num_frames]
    return decoded


def outcome(model: Model, data: bytes, truth: dict[tuple[int, int], Tensor]) -> str:
    """`same`, `refused`, or what is wrong with how a mutated file was met."""
    try:
        decoded = decode_file(model, data)
    except AudioVAEError as error:
        text = str(error)
        return "refused" if text and "\n" not in text and text.isprintable() else f"bad: {text!r}"
    except Exception as error:  # noqa: BLE001 - whatever else comes is the finding
        return f"crashed: {error!r}"
    same = decoded.keys() == truth.keys() and all(
        decoded[key].shape == truth[key].shape
        and torch.allclose(decoded[key], truth[key], atol=1e-3)
        for key in truth
    )
    return "same" if same else "silently wrong"


def sections(data: bytes) -> dict[str, tuple[int, int]]:
    """Where header, table and payloads lie, `[start, stop)`."""
    reader = ByteReader(data, "a file")
    reader.take(len(MAGIC) + 1)
    reader.take(reader.varint() + 4)
    with AvaeReader(data) as file:
        first_payload = file.entries[0].offset
    return {
        "header": (0, reader.position),
        "table": (reader.position, first_payload),
        "payload": (first_payload, len(data)),
    }


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """One random mutation."""
    names = list(MUTATIONS)
    return MUTATIONS[names[generator.integers(len(names))]](data, generator)


def _flip_bits(data: bytes, generator: np.random.Generator) -> bytes:
    mutated = bytearray(data)
    for place in generator.integers(8 * len(data), size=generator.integers(1, 9)):
        mutated[place // 8] ^= 1 << (place % 8)
    return bytes(mutated)


def _truncate(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: generator.integers(len(data))]


def _append(data: bytes, generator: np.random.Generator) -> bytes:
    return data + generator.bytes(int(generator.integers(1, 100)))


def _range(length: int, generator: np.random.Generator) -> tuple[int, int]:
    first, last = sorted(generator.integers(length + 1, size=2).tolist())
    return first, last


def _swap_ranges(data: bytes, generator: np.random.Generator) -> bytes:
    """Two payloads change places, or two ranges of equal length anywhere."""
    with AvaeReader(data) as file:
        entries = file.entries
    if len(entries) > 1 and generator.random() < 0.5:
        one, other = generator.choice(len(entries), 2, replace=False)
        parts = [data[entry.offset : entry.offset + entry.num_bytes] for entry in entries]
        parts[one], parts[other] = parts[other], parts[one]
        return data[: entries[0].offset] + b"".join(parts)
    length = int(generator.integers(1, len(data) // 2))
    one, other = sorted(generator.integers(len(data) - length, size=2).tolist())
    other = max(other, one + length)
    left, right = data[one : one + length], data[other : other + length]
    return data[:one] + right + data[one + length : other] + left + data[other + length :]


def _duplicate_range(data: bytes, generator: np.random.Generator) -> bytes:
    first, last = _range(len(data), generator)
    return data[:last] + data[first:last] + data[last:]


def _overwrite(data: bytes, generator: np.random.Generator) -> bytes:
    first, last = _range(len(data), generator)
    return data[:first] + generator.bytes(last - first) + data[last:]


def _random_header(data: bytes, generator: np.random.Generator) -> bytes:
    """A header of random content whose length and checksum are right, before the old rest."""
    start, stop = sections(data)["header"]
    with AvaeReader(data) as file:
        body = bytearray(file.header.to_bytes())
    if generator.random() < 0.5:
        body = bytearray(generator.bytes(int(generator.integers(0, 60))))
    for place in generator.integers(max(len(body), 1), size=generator.integers(1, 4)):
        if body:
            body[place] = generator.integers(256)
    head = MAGIC + bytes([VERSION]) + write_varint(len(body)) + bytes(body)
    return data[:start] + head + zlib.crc32(head).to_bytes(4, "little") + data[stop:]


MUTATIONS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "flipped bits": _flip_bits,
    "truncated": _truncate,
    "swapped": _swap_ranges,
    "duplicated": _duplicate_range,
    "overwritten": _overwrite,
    "random header": _random_header,
    "appended": _append,
}
