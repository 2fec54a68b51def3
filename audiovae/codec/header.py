"""The header of a compressed file: what the sound was, and which model coded it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from audiovae.audio.resample import resampled_length
from audiovae.audio.values import BIT_DEPTHS, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from audiovae.chunks import chunk_range, num_chunks
from audiovae.codec.integers import ByteReader, write_varint
from audiovae.config import SpectrogramConfig
from audiovae.errors import BitstreamError
from audiovae.spectrogram import num_frames

GRID = SpectrogramConfig(sample_rate=44_100, hop_samples=512, window_samples=2048)
"""Files are for this rate, hop and window, so that a file's chunks follow from its length."""
MAX_SAMPLES = 1 << 48
MAX_NAME_BYTES = 32
MAX_CLIP_CODES_BYTES = 1 << 16
_KINDS = {"quantized": b"q", "vq": b"v"}
_ID_BYTES = 8
_HAS_LAMBDA = 1
_HAS_COPIES = 2
_MAX_LOG_LAMBDA = 64.0


@dataclass(frozen=True)
class AvaeHeader:
    """Facts of a compressed file.

    Attributes:
        sample_rate: Of the source, Hz.
        num_channels: Of the source.
        num_samples: Of the source, per channel.
        bit_depth: Of the source.
        model_id: Identity of the weights that decode it, 16 hexadecimal characters.
        model_name: A hint where to find them.
        quality: The step of the model's quality scale that was asked for; 0 for none.
        log_lambda: What the model was conditioned on, a float32 value; None for a model without.
        channel_sources: For each channel the channel that is stored for it: itself, or an
            earlier one with the same sound. Empty if all are stored.
        kind: Of the bottleneck.
        clip_codes: Codes of the whole clip; empty in version 1.
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    bit_depth: int
    model_id: str
    model_name: str = ""
    quality: int = 0
    log_lambda: float | None = None
    channel_sources: tuple[int, ...] = ()
    kind: str = "quantized"
    clip_codes: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what no file may say."""
        for holds, what, got in self._requirements():
            if not holds:
                raise BitstreamError(
                    f"expected {what} in a compressed file's header, got {got}; "
                    "the file is damaged or was not made by this project"
                )

    def _requirements(self) -> list[tuple[bool, str, object]]:
        rate, channels = self.sample_rate, self.num_channels
        log_lambda = 0.0 if self.log_lambda is None else self.log_lambda
        is_id = len(self.model_id) == 2 * _ID_BYTES and set(self.model_id) <= set(
            "0123456789abcdef"
        )
        name_bytes = self.model_name.encode(errors="replace")
        return [
            (MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE, "a sample rate of 1 to 768 kHz", rate),
            (1 <= channels <= MAX_CHANNELS, f"1 to {MAX_CHANNELS} channels", channels),
            (1 <= self.num_samples <= MAX_SAMPLES, "1 to 2^48 samples", self.num_samples),
            (self.bit_depth in BIT_DEPTHS, "8, 16, 24, 32 or 64 bits", self.bit_depth),
            (is_id, "a model id of 16 hexadecimal characters", repr(self.model_id)),
            (
                len(name_bytes) <= MAX_NAME_BYTES and _is_name(self.model_name),
                f"a model name, not a path, of at most {MAX_NAME_BYTES} bytes",
                ascii(self.model_name),
            ),
            (0 <= self.quality <= 255, "a quality of 0 to 255", self.quality),
            (abs(log_lambda) <= _MAX_LOG_LAMBDA, "a usual log lambda", log_lambda),
            (self._sources_are_sound(), "copies of earlier channels", self.channel_sources),
            (self.kind in _KINDS, f"a bottleneck of {', '.join(_KINDS)}", ascii(self.kind)),
            (len(self.clip_codes) <= MAX_CLIP_CODES_BYTES, "clip codes of 64 KiB at most", "more"),
        ]

    def _sources_are_sound(self) -> bool:
        sources = self.channel_sources
        if not sources:
            return True
        return len(sources) == self.num_channels and all(
            0 <= source <= channel and sources[source] == source
            for channel, source in enumerate(sources)
        )

    @property
    def coded_channels(self) -> tuple[int, ...]:
        """Channels that are stored, ascending."""
        return tuple(sorted(set(self.channel_sources))) or tuple(range(self.num_channels))

    @property
    def version(self) -> int:
        """Of the layout to write: only chunks of a second channel have what version 1 has not."""
        return 2 if len(self.coded_channels) > 1 else 1

    @property
    def num_frames(self) -> int:
        """Mel frames of a channel."""
        samples = resampled_length(self.num_samples, self.sample_rate, GRID.sample_rate)
        return num_frames(samples, GRID)

    @property
    def num_chunks(self) -> int:
        """Chunks of a channel."""
        return num_chunks(self.num_frames)

    @property
    def duration_seconds(self) -> float:
        """Length of the sound."""
        return self.num_samples / self.sample_rate

    def chunk_frames(self, index: int) -> int:
        """Mel frames that chunk `index` codes."""
        return len(chunk_range(index, self.num_frames))

    def chunk_seconds(self, index: int) -> tuple[float, float]:
        """Where the sound of chunk `index` begins and ends."""
        frames = chunk_range(index, self.num_frames)
        start, stop = frames.start / GRID.frames_per_second, frames.stop / GRID.frames_per_second
        return start, min(stop, self.duration_seconds)

    def source_of(self, channel: int) -> int:
        """The stored channel that stands for `channel`."""
        return self.channel_sources[channel] if self.channel_sources else channel

    def to_bytes(self) -> bytes:
        """The header's body, without magic, version, length and checksum."""
        has_copies = self.coded_channels != tuple(range(self.num_channels))
        flags = (self.log_lambda is not None) * _HAS_LAMBDA + has_copies * _HAS_COPIES
        name = self.model_name.encode()
        parts = [
            bytes([flags]),
            _KINDS[self.kind],
            bytes.fromhex(self.model_id),
            write_varint(len(name)) + name,
            write_varint(self.sample_rate),
            write_varint(self.num_channels),
            write_varint(self.num_samples),
            bytes([self.bit_depth, self.quality]),
        ]
        if self.log_lambda is not None:
            parts.append(struct.pack("<f", self.log_lambda))
        if has_copies:
            parts += [write_varint(source) for source in self.channel_sources]
        parts.append(write_varint(len(self.clip_codes)) + self.clip_codes)
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, body: bytes) -> AvaeHeader:
        """Read what `to_bytes` gave.

        Raises:
            BitstreamError: If the body is not a header.
        """
        reader = ByteReader(body, "the header")
        flags = reader.take(1)[0]
        kind = reader.take(1)
        model_id = reader.take(_ID_BYTES).hex()
        name = reader.take(min(reader.varint(), MAX_NAME_BYTES + 1))
        sample_rate, channels, num_samples = (reader.varint() for _ in range(3))
        bit_depth, quality = reader.take(2)
        log_lambda = None
        if flags & _HAS_LAMBDA:
            log_lambda = _finite(struct.unpack("<f", reader.take(4))[0])
        sources: tuple[int, ...] = ()
        if flags & _HAS_COPIES:
            sources = tuple(reader.varint() for _ in range(min(channels, MAX_CHANNELS)))
        clip_codes = reader.take(reader.varint())
        if reader.remaining or flags > _HAS_LAMBDA + _HAS_COPIES:
            raise BitstreamError(
                "expected a header, got fields it does not have; "
                "the file is damaged or was not made by this project"
            )
        return cls(
            sample_rate=sample_rate,
            num_channels=channels,
            num_samples=num_samples,
            bit_depth=bit_depth,
            model_id=model_id,
            model_name=name.decode(errors="backslashreplace"),
            quality=quality,
            log_lambda=log_lambda,
            channel_sources=sources,
            kind={code: name for name, code in _KINDS.items()}.get(kind, repr(kind)),
            clip_codes=clip_codes,
        )


def _is_name(name: str) -> bool:
    """Whether a file may say it: a hint where to look must not lead out of where models are."""
    return name.isprintable() and not set(name) & set("/\\:") and not name.startswith(".")


def _finite(value: float) -> float:
    """Not-a-number has no place in the header; infinity fails the range check anyway."""
    return math.inf if math.isnan(value) else value
