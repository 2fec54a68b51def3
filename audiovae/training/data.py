"""Training data: a corpus of clips, and random crops drawn from it.

There is no loader process: a corpus of waveforms or log-mels sits in memory (on a GPU, on the
card: three hours of audio as int16 are under 1 GB), and drawing a batch is a few copies. A corpus
larger than memory is read from shards (`shards.py`), of which only the crops are touched.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae import audio
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioReadError, ConfigError
from audiovae.spectrogram import ReadSamples, log_mel_window, num_frames

_LOG = logging.getLogger(__name__)
_INT16_SCALE = 32767.0
_PIECE_FRAMES = 4096
_VALIDATION_SHARE = 0.03
_MAX_VALIDATION_CLIPS = 48
_MEMORY_SHARE = 0.5
_SPILL_SHARE = 8  # a crop may reach over a clip's end by an eighth, so that ends are learnt too
_STATISTICS_FRAMES = 4_000_000
_MIN_DEVIATION = 0.1  # a band that hardly varies is not blown up to unit deviation

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Corpus:
    """Clips in a few arrays.

    Attributes:
        arrays: Each `[position, ...]`: samples (int16), or log-mel frames (float16, `[.., mel]`).
        array_of: `[clip]`, which array holds a clip.
        starts: `[clip]`, first position of a clip in its array.
        lengths: `[clip]`, positions of a clip, at least one.
        names: Path of each clip, relative to the corpus.
        mapped: Whether the arrays are files that should stay where they are.
    """

    arrays: tuple[Tensor, ...]
    array_of: Tensor
    starts: Tensor
    lengths: Tensor
    names: tuple[str, ...]
    mapped: bool = False

    @classmethod
    def of_clips(cls, clips: Sequence[Tensor], names: Sequence[str]) -> Corpus:
        """A corpus in memory, an array a clip."""
        count = len(clips)
        lengths = torch.tensor([len(clip) for clip in clips])
        starts = torch.zeros(count, dtype=torch.long)
        return cls(tuple(clips), torch.arange(count), starts, lengths, tuple(names))

    @cached_property
    def ends(self) -> Tensor:
        """`[clip]`, running sum of the lengths."""
        return self.lengths.cumsum(0)

    def clip(self, index: int) -> Tensor:
        """Data of one clip, `[position, ...]`."""
        start = int(self.starts[index])
        array = self.arrays[int(self.array_of[index])]
        return array[start : start + int(self.lengths[index])]

    def subset(self, indices: Sequence[int]) -> Corpus:
        """The same data seen as fewer clips."""
        keep = torch.as_tensor(indices, dtype=torch.long)
        return replace(
            self,
            array_of=self.array_of[keep],
            starts=self.starts[keep],
            lengths=self.lengths[keep],
            names=tuple(self.names[index] for index in indices),
        )

    def to(self, device: torch.device) -> Corpus:
        """The corpus with its arrays on another device; mapped ones stay."""
        if self.mapped:
            return self
        return replace(self, arrays=tuple(array.to(device) for array in self.arrays))

    def split(self) -> tuple[Corpus, Corpus]:
        """Training and validation clips.

        A clip's side depends on its name alone, so a growing corpus never moves a clip from one
        side to the other, unless it is so small that no name falls on the validation side: then
        one clip is held back, and of a single clip the last tenth. Of very many clips that are
        held back, a few dozen are enough to measure on.
        """
        if len(self.names) == 1:
            return self._split_in_time()
        ranks = [_name_rank(name) for name in self.names]
        by_rank = sorted(range(len(ranks)), key=ranks.__getitem__)
        count = sum(rank < _VALIDATION_SHARE for rank in ranks)
        count = min(max(count, 1), len(ranks) - 1)
        held_back, kept = by_rank[:count], by_rank[count:]
        return self.subset(sorted(kept)), self.subset(sorted(held_back[:_MAX_VALIDATION_CLIPS]))

    def _split_in_time(self) -> tuple[Corpus, Corpus]:
        held_back = self.lengths // 10
        if int(held_back) == 0:
            return self, self
        kept = self.lengths - held_back
        return (
            replace(self, lengths=kept),
            replace(self, starts=self.starts + kept, lengths=held_back),
        )


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Attributes:
        data: `[batch, position, ...]` in the corpus's own type, zero beyond a clip's end.
        lengths: `[batch]`, positions that are signal.
    """

    data: Tensor
    lengths: Tensor


def draw_crops(
    corpus: Corpus, batch_size: int, crop: int, generator: torch.Generator, device: torch.device
) -> Crops:
    """Draw random crops, clips in proportion to their length.

    Args:
        corpus: Where from.
        batch_size: Crops to draw.
        crop: Positions of a crop.
        generator: A CPU generator; its state is all the randomness there is.
        device: Where the crops are wanted.
    """
    draw = torch.rand(2, batch_size, generator=generator, dtype=torch.float64)
    clips = torch.searchsorted(corpus.ends, (draw[0] * corpus.ends[-1]).long(), right=True)
    lengths = corpus.lengths[clips]
    room = (lengths - crop + crop // _SPILL_SHARE).clamp(min=0) + 1
    places = (draw[1] * room).long()
    first = corpus.arrays[0]
    data = first.new_zeros((batch_size, crop, *first.shape[1:]))
    for row, (clip, place) in enumerate(zip(clips.tolist(), places.tolist(), strict=True)):
        piece = corpus.clip(clip)[place : place + crop]
        data[row, : len(piece)] = piece
    return Crops(data.to(device), (lengths - places).clamp(max=crop).to(device))


def load_waveforms(
    directory: Path, sample_rate: int, workers: int = 2, progress: Progress | None = None
) -> Corpus:
    """Decode every audio file below a directory to mono int16 at one rate.

    Files that are no audio are left out; unreadable ones are logged and left out.

    Raises:
        ConfigError: If there is no directory, no readable audio in it, or too much for memory.
    """
    paths = audio_paths(directory)
    limit = _MEMORY_SHARE * _memory_bytes()
    clips: list[Tensor] = []
    names: list[str] = []
    total = 0
    pool = ThreadPoolExecutor(workers)
    try:
        decoded = pool.map(lambda path: _decode(path, sample_rate), paths)
        for done, (path, clip) in enumerate(zip(paths, decoded, strict=True), start=1):
            if clip is not None:
                clips.append(torch.from_numpy(clip))
                names.append(path.relative_to(directory).as_posix())
                total += clip.nbytes
            if total > limit:
                raise ConfigError(
                    f"{directory}: expected audio that fits in half of this machine's memory, "
                    f"got more ({done} of {len(paths)} files fill {total / 2**30:.1f} GiB); make "
                    "shards with python -m pipelines.preprocess and train on those"
                )
            if progress:
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    if not clips:
        raise ConfigError(
            f"{directory}: expected readable audio files, got none among the {len(paths)} that "
            "are named like audio; the warnings above say why"
        )
    return Corpus.of_clips(clips, names)


def audio_paths(directory: Path) -> list[Path]:
    """Files below a directory that are named like audio, sorted.

    Raises:
        ConfigError: If there is no directory, or none of its files is named like audio.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: expected a directory of audio, found none; check the path")
    found = (Path(root) / name for root, _, names in os.walk(directory) for name in names)
    paths = sorted(path for path in found if audio.claims_to_be_audio(path))
    if not paths:
        raise ConfigError(f"{directory}: expected audio files, found none; check the path")
    return paths


def log_mel_pieces(
    read: ReadSamples, num_samples: int, config: SpectrogramConfig
) -> Iterator[Tensor]:
    """Log-mel of a mono signal as float16 `[frame, mel]`, in order, 48 s at a time."""
    total = num_frames(num_samples, config)
    for first in range(0, total, _PIECE_FRAMES):
        last = min(first + _PIECE_FRAMES, total)
        yield log_mel_window(read, num_samples, first, last, config)[0].T.half()


def log_mel_corpus(waveforms: Corpus, config: SpectrogramConfig) -> Corpus:
    """Log-mel of every clip of a waveform corpus, as float16 frames `[frame, mel]`."""
    clips = []
    for index in range(len(waveforms.names)):
        clip = waveforms.clip(index)

        def read(start: int, stop: int, clip: Tensor = clip) -> NDArray[np.float32]:
            samples: NDArray[np.float32] = to_float(clip[start:stop])[None].numpy()
            return samples

        clips.append(torch.cat(list(log_mel_pieces(read, len(clip), config))))
    return Corpus.of_clips(clips, waveforms.names)


def to_float(samples: Tensor) -> Tensor:
    """Samples of a waveform corpus as float32 in [-1, 1]."""
    return samples.float() / _INT16_SCALE


def log_mel_statistics(corpus: Corpus, config: SpectrogramConfig) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[mel]` of a log-mel corpus; of 13 hours of a larger one.

    Raises:
        ConfigError: If the corpus is digital silence, which no model can be standardised by.
    """
    total = torch.zeros(config.num_mels, dtype=torch.float64)
    squares = torch.zeros_like(total)
    count = 0
    for index in sorted(range(len(corpus.names)), key=lambda i: _name_rank(corpus.names[i])):
        clip = corpus.clip(index)
        for first in range(0, len(clip), _PIECE_FRAMES):
            values = clip[first : first + _PIECE_FRAMES].double().cpu()
            total += values.sum(dim=0)
            squares += values.square().sum(dim=0)
            count += len(values)
        if count >= _STATISTICS_FRAMES:
            break
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    if float(variance.max()) < 1e-6 and float(mean.max()) < config.log_floor + 0.1:
        raise ConfigError("expected training audio with sound in it, got silence only")
    return mean.float(), variance.sqrt().clamp(min=_MIN_DEVIATION).float()


def _decode(path: Path, sample_rate: int) -> NDArray[np.int16] | None:
    """Mono int16 of a file, a piece at a time; None (and a warning) if it cannot be read."""
    try:
        with audio.ResampledReader(path, sample_rate) as reader:
            samples = np.empty(reader.num_samples, np.int16)
            for start in range(0, len(samples), _PIECE_FRAMES * 512):
                stop = min(start + _PIECE_FRAMES * 512, len(samples))
                scaled = np.round(reader.read(start, stop).mean(axis=0) * _INT16_SCALE)
                samples[start:stop] = np.clip(scaled, -32768, 32767)
    except AudioReadError as error:
        _LOG.warning("left out of training: %s", error)
        return None
    return samples


def _memory_bytes() -> float:
    """This machine's memory; infinite where it cannot be told."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _name_rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
