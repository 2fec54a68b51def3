"""Part files: what one worker made of a span of a long file, until the file is put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiovae.audio import Waveform
from audiovae.codec import CodedChunk
from audiovae.replacing import replacing

_FIELDS = ("symbols_crc", "num_frames", "corrections_bytes", "channel", "index")


@dataclass(frozen=True)
class Part:
    """What became of a span, or of a whole short file.

    Attributes:
        sound: `[channel, sample]` at the model's rate, or None if none was asked for.
        chunks: Coded chunks in the order of the compressed file.
    """

    sound: Waveform | None
    chunks: tuple[CodedChunk, ...]


def save_part(path: Path, part: Part) -> None:
    """Write a part atomically, as an uncompressed `.npz` under any name."""
    payloads = [chunk.payload for chunk in part.chunks]
    facts = [[getattr(chunk, name) for name in _FIELDS] for chunk in part.chunks]
    empty = np.zeros((0, 0), np.float32)
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            payload=np.frombuffer(b"".join(payloads), np.uint8),
            lengths=np.array([len(payload) for payload in payloads], np.int64),
            facts=np.array(facts, np.int64).reshape(-1, len(_FIELDS)),
            sound=empty if part.sound is None else part.sound,
        )


def load_part(path: Path) -> Part:
    """Read what `save_part` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        payload = arrays["payload"].tobytes()
        stops = np.cumsum(arrays["lengths"]).tolist()
        starts = [0, *stops]
        chunks = tuple(
            CodedChunk(payload[start:stop], **dict(zip(_FIELDS, row, strict=True)))
            for start, stop, row in zip(starts, stops, arrays["facts"].tolist(), strict=False)
        )
        sound = arrays["sound"]
    return Part(sound if sound.size else None, chunks)
