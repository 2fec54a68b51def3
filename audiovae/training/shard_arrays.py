"""The arrays of shards as files: what their headers say, and whether they are all there.

A header of the same kind and length always has the same bytes, so a file is known to be whole
from its first bytes and its size, without reading the rest. Nothing here needs torch.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np

from audiovae.config import SpectrogramConfig
from audiovae.training.shard_index import ShardRow, ShardsDescription

LOG_MEL_DIR: Final = "shards"
WAVEFORM_DIR: Final = "waveforms"


@dataclass(frozen=True, slots=True)
class ArrayKind:
    """One of the kinds of array that a shard has.

    Attributes:
        folder: Where the files of this kind lie.
        width: Numbers of a frame.
        dtype: Of a number, as NumPy writes it.
    """

    folder: str
    width: int
    dtype: str

    @property
    def header_bytes(self) -> int:
        """Length of a header, the same for any number of frames: NumPy pads it for that."""
        return len(self.header(0))

    @property
    def frame_bytes(self) -> int:
        """Length of a frame."""
        return self.width * np.dtype(self.dtype).itemsize

    def header(self, num_frames: int) -> bytes:
        """The first bytes of a file: see `numpy.lib.format`."""
        facts = {"descr": self.dtype, "fortran_order": False, "shape": (num_frames, self.width)}
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, facts)
        return header.getvalue()

    def frames_of(self, start: bytes, size: int) -> int:
        """Frames of a file with this beginning and size; 0 if it is damaged or not there."""
        frames, rest = divmod(size - self.header_bytes, self.frame_bytes)
        is_whole = frames > 0 and not rest and start == self.header(frames)
        return frames if is_whole else 0


def log_mels(config: SpectrogramConfig) -> ArrayKind:
    """Float16 `[frame, mel]`."""
    return ArrayKind(LOG_MEL_DIR, config.num_mels, "<f2")


def waveforms(config: SpectrogramConfig) -> ArrayKind:
    """Int16 `[frame, sample of a hop]`."""
    return ArrayKind(WAVEFORM_DIR, config.hop_samples, "<i2")


def arrays_of(description: ShardsDescription) -> tuple[ArrayKind, ...]:
    """What every shard of a directory has."""
    config = description.spectrogram
    sound = (waveforms(config),) if description.with_audio else ()
    return (log_mels(config), *sound)


def lies_inside(row: ShardRow, num_frames: int, description: ShardsDescription) -> bool:
    """Whether a row names frames, and samples if there are any, that its shard has."""
    fits = row.num_frames > 0 and 0 <= row.first_frame <= num_frames - row.num_frames
    room = row.num_frames * description.spectrogram.hop_samples
    return fits and (not description.with_audio or 0 < row.num_samples <= room)
