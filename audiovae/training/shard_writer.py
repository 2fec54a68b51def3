"""Audio to one shard: its log-mel frames, and on request its waveforms, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiovae.audio import AudioInfo, ResampledReader, mixed_to_mono
from audiovae.audio.resample import resampled_length
from audiovae.config import SpectrogramConfig
from audiovae.errors import CorruptAudioError
from audiovae.spectrogram import num_frames
from audiovae.training.data import log_mel_pieces
from audiovae.training.decoding import to_int16
from audiovae.training.shard_arrays import ArrayKind, log_mels, waveforms
from audiovae.training.shard_index import ClipPart, ShardRow


def frames_of(info: AudioInfo, config: SpectrogramConfig) -> int:
    """Mel frames of a file, once it is at the shards' rate."""
    samples = resampled_length(info.num_samples, info.sample_rate, config.sample_rate)
    return num_frames(samples, config)


class ShardWriter:
    """Context that writes one shard: parts are appended, a part that fails leaves no trace.

    Args:
        name: Of the shard's file, for the index.
        log_mel: Where the frames go.
        waveform: Where the samples go; None to leave them out.
        config: The spectrogram.

    Attributes:
        num_frames: What is in the shard.
    """

    def __init__(
        self, name: str, log_mel: Path, waveform: Path | None, config: SpectrogramConfig
    ) -> None:
        self._name, self._config = name, config
        self._log_mel = _ArrayFile(log_mel, log_mels(config))
        self._waveform = _ArrayFile(waveform, waveforms(config)) if waveform else None
        self.num_frames = 0

    def __enter__(self) -> ShardWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Give the arrays their final size."""
        for array in self._arrays():
            array.close()

    def add(self, file: Path, part: ClipPart) -> ShardRow:
        """Append a part of `file`, in memory that does not grow with its length.

        Raises:
            AudioReadError: If the file cannot be read, or is not as long as it was said to be.
        """
        before = self.num_frames
        try:
            return self._append(file, part)
        except Exception:
            for array in self._arrays():
                array.cut_back(before)
            self.num_frames = before
            raise

    def _append(self, file: Path, part: ClipPart) -> ShardRow:
        config, hop = self._config, self._config.hop_samples
        first_frame, stop = self.num_frames, part.source_frame + part.num_frames
        with ResampledReader(file, config.sample_rate) as reader:
            total = num_frames(reader.num_samples, config)
            if total != part.file_frames:
                raise CorruptAudioError(
                    f"{file}: expected {part.file_frames} frames, as its header said, got {total}; "
                    "copy the file again from its source"
                )
            sound = _MonoSound(reader)
            pieces = log_mel_pieces(sound.read, reader.num_samples, config, part.source_frame, stop)
            at = part.source_frame
            for piece in pieces:
                self._log_mel.append(_to_numpy(piece))
                if self._waveform:
                    samples = sound.held(at * hop, (at + len(piece)) * hop)
                    self._waveform.append(samples.reshape(-1, hop))
                at += len(piece)
            self.num_frames += part.num_frames
            return ShardRow(
                path=part.path,
                shard=self._name,
                first_frame=first_frame,
                num_frames=part.num_frames,
                sample_rate=reader.info.sample_rate,
                seconds=reader.info.duration_seconds,
                source_frame=part.source_frame,
                file_frames=part.file_frames,
                num_samples=min(stop * hop, reader.num_samples) - part.source_frame * hop,
                size=part.size,
                mtime_ns=part.mtime_ns,
                sha256=part.sha256,
            )

    def _arrays(self) -> Iterator[_ArrayFile]:
        yield self._log_mel
        if self._waveform:
            yield self._waveform


class _MonoSound:
    """A file's channels mixed to one, which remembers the range that was read last."""

    def __init__(self, reader: ResampledReader) -> None:
        self._reader = reader
        self._start = 0
        self._samples = np.zeros(0, np.float32)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """`[1, sample]` of a range of the file."""
        self._start = start
        self._samples = mixed_to_mono(self._reader.read(start, stop))[0]
        return self._samples[None]

    def held(self, start: int, stop: int) -> NDArray[np.int16]:
        """A range inside the last one; zeros beyond the end of the file."""
        samples = np.zeros(stop - start, np.int16)
        known = self._samples[start - self._start : stop - self._start]
        samples[: len(known)] = to_int16(known)
        return samples


class _ArrayFile:
    """A two-dimensional .npy file that grows by frames."""

    def __init__(self, path: Path, kind: ArrayKind) -> None:
        self._kind = kind
        self._file: BinaryIO = path.open("wb")
        self._file.write(kind.header(0))

    def append(self, frames: NDArray[np.generic]) -> None:
        self._file.write(np.ascontiguousarray(frames, self._kind.dtype).data)

    def cut_back(self, num_frames: int) -> None:
        self._file.seek(self._kind.header_bytes + num_frames * self._kind.frame_bytes)
        self._file.truncate()

    def close(self) -> None:
        with self._file:
            frames = (self._file.tell() - self._kind.header_bytes) // self._kind.frame_bytes
            self._file.seek(0)
            self._file.write(self._kind.header(frames))


def _to_numpy(log_mel: Tensor) -> NDArray[np.generic]:
    frames: NDArray[np.generic] = log_mel.numpy()
    return frames
