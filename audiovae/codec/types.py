"""The values that the codec's parts hand to each other."""

from __future__ import annotations

from dataclasses import dataclass

from audiovae.errors import BitstreamError


@dataclass(frozen=True)
class CodedChunk:
    """One chunk of one channel as bytes.

    Attributes:
        payload: Corrections, the rows of gains and angles, then the range coder's words;
            `docs/format.md` has the layout.
        symbols_crc: CRC-32 of the symbols that the payload holds.
        num_frames: Mel frames of the chunk that are signal.
        level_bits: The model's own estimate of the bits of each level, coarse to fine; empty in
            a chunk that was read from a file.
        side_bits: What gains and angles cost; 0 in a chunk that was read from a file.
        corrections_bytes: How much of the payload is corrections.
        channel: Which channel it is of.
        index: Which chunk of that channel it is.
    """

    payload: bytes
    symbols_crc: int
    num_frames: int
    level_bits: tuple[float, ...] = ()
    side_bits: float = 0.0
    corrections_bytes: int = 0
    channel: int = 0
    index: int = 0


class DamagedChunkError(BitstreamError):
    """One chunk of a compressed file cannot be decoded; the others can.

    Attributes:
        channel: Which channel it is of.
        index: Which chunk of that channel it is.
        start_seconds: Where the chunk's sound begins.
        stop_seconds: Where it ends.
    """

    def __init__(
        self, reason: str, channel: int, index: int, start_seconds: float, stop_seconds: float
    ) -> None:
        """Compose the message from what was expected and found, and the place."""
        super().__init__(
            f"chunk {index} of channel {channel} ({start_seconds:.1f} to {stop_seconds:.1f} s): "
            f"{reason}"
        )
        self.channel = channel
        self.index = index
        self.start_seconds = start_seconds
        self.stop_seconds = stop_seconds
