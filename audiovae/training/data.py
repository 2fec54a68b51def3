"""Training data: a corpus of clips.

There is no loader process: a corpus of waveforms or log-mels sits in memory (on a GPU, on the
card: three hours of audio as int16 are under 1 GB), and drawing a batch (`crops.py`) is one step
there. A corpus larger than memory is read from shards (`shards.py`), of which only the crops are
touched.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae.audio.values import MAX_MAGNITUDE
from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.spectrogram import ReadSamples, log_mel_spectrogram, log_mel_window, num_frames
from audiovae.training.decoding import INT16_SCALE, audio_paths, decode_mono

_PIECE_FRAMES = 4096
_VALIDATION_SHARE = 0.03
_MAX_VALIDATION_CLIPS = 48
_VALIDATION_PIECES = 24  # that are measured of few, long clips
_MEMORY_SHARE = 0.5
_CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_STATISTICS_FRAMES = 4_000_000
_HALF_ROUNDING = 2.0**-10  # twice what the rounding to float16 can do to the floor
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
        labels: Class of each clip; empty if none is known.
    """

    arrays: tuple[Tensor, ...]
    array_of: Tensor
    starts: Tensor
    lengths: Tensor
    names: tuple[str, ...]
    mapped: bool = False
    labels: tuple[str, ...] = ()

    @classmethod
    def of_clips(cls, clips: Sequence[Tensor], names: Sequence[str]) -> Corpus:
        """A corpus in memory: a copy of the clips, one behind the other in one array."""
        return cls.of_array(torch.cat(list(clips)), [len(clip) for clip in clips], names)

    @classmethod
    def of_array(cls, array: Tensor, lengths: Sequence[int], names: Sequence[str]) -> Corpus:
        """A corpus in memory, of clips that lie one behind the other in `array`."""
        sizes = torch.tensor(lengths)
        return cls((array,), torch.zeros_like(sizes), sizes.cumsum(0) - sizes, sizes, tuple(names))

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
            labels=tuple(self.labels[index] for index in indices) if self.labels else (),
        )

    def pieces(self, size: int) -> Corpus:
        """Few, long clips as a dozen or two of pieces, spread evenly; many as they are.

        What is measured is the beginning of a clip, up to `size` positions. Of a single long one
        that would be its fade-in.
        """
        counts = (self.lengths // size).clamp(min=1).tolist()
        places = [(clip, size * at) for clip, count in enumerate(counts) for at in range(count)]
        wanted = min(_VALIDATION_PIECES, len(places))
        if len(self.names) >= wanted:
            return self
        spread = [places[at * len(places) // wanted] for at in range(wanted)]
        offsets = torch.tensor([offset for _, offset in spread])
        chosen = self.subset([clip for clip, _ in spread])
        return replace(
            chosen,
            starts=chosen.starts + offsets,
            lengths=(chosen.lengths - offsets).clamp(max=size),
        )

    def labelled(self, labels: Sequence[str]) -> Corpus:
        """The same clips with their classes."""
        return replace(self, labels=tuple(labels))

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


def load_waveforms(directory: Path, sample_rate: int, progress: Progress | None = None) -> Corpus:
    """Decode every audio file below a directory to mono int16 at one rate.

    Files that are no audio are left out; unreadable ones are logged and left out.

    Raises:
        ConfigError: If there is no directory, no readable audio in it, or too much for memory.
    """
    paths = audio_paths(directory)
    limit = _MEMORY_SHARE * memory_bytes()
    clips: list[Tensor] = []
    names: list[str] = []
    total = 0
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        decoded = pool.map(lambda path: decode_mono(path, sample_rate), paths)
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
    lengths = [len(clip) for clip in clips]
    return Corpus.of_array(_joined(clips), lengths, names)


def _joined(clips: list[Tensor]) -> Tensor:
    """All clips in one array; the list is emptied on the way, so that nothing is held twice."""
    array = clips[0].new_empty(sum(len(clip) for clip in clips))  # memory is taken when written to
    end = len(array)
    while clips:
        clip = clips.pop()
        array[end - len(clip) : end] = clip
        end -= len(clip)
    return array


def log_mel_pieces(
    read: ReadSamples,
    num_samples: int,
    config: SpectrogramConfig,
    first_frame: int = 0,
    last_frame: int | None = None,
) -> Iterator[Tensor]:
    """Log-mel of a range of a mono signal as float16 `[frame, mel]`, in order, 48 s at a time."""
    stop = num_frames(num_samples, config) if last_frame is None else last_frame
    for first in range(first_frame, stop, _PIECE_FRAMES):
        last = min(first + _PIECE_FRAMES, stop)
        yield log_mel_window(read, num_samples, first, last, config)[0].T.half()


def log_mel_corpus(waveforms: Corpus, config: SpectrogramConfig) -> Corpus:
    """Log-mel of every clip of a waveform corpus, as float16 frames `[frame, mel]`."""
    clips = []
    for index in range(len(waveforms.names)):
        clip = waveforms.clip(index)
        if clip.is_cuda:  # its spectrogram is made there, in blocks; memory holds the samples
            log_mel = log_mel_spectrogram(to_float(clip)[None], config)
            clips.append(log_mel[0].T.half())
            continue

        def read(start: int, stop: int, clip: Tensor = clip) -> NDArray[np.float32]:
            samples: NDArray[np.float32] = to_float(clip[start:stop])[None].numpy()
            return samples

        clips.append(torch.cat(list(log_mel_pieces(read, len(clip), config))))
    return Corpus.of_clips(clips, waveforms.names)


def to_float(samples: Tensor) -> Tensor:
    """Samples of a waveform corpus as float32 in [-1, 1]."""
    return samples.float() / INT16_SCALE


def log_mel_statistics(corpus: Corpus, config: SpectrogramConfig) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[mel]` of a log-mel corpus; of 13 hours of a larger one.

    Raises:
        ConfigError: If the corpus is digital silence, which no model can be standardised by, or
            holds what is no log-mel.
    """
    total = torch.zeros(config.num_mels, dtype=torch.float64)
    squares = torch.zeros_like(total)
    count = 0
    for index in sorted(range(len(corpus.names)), key=lambda i: _name_rank(corpus.names[i])):
        clip = corpus.clip(index)
        for first in range(0, len(clip), _PIECE_FRAMES):
            frames = clip[first : first + _PIECE_FRAMES, : config.num_mels]
            if corpus.mapped:
                require_log_mels(frames, config, corpus.names[index])
            values = frames.double().cpu()
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


def require_log_mels(frames: Tensor, config: SpectrogramConfig, name: str) -> None:
    """Refuse what is the log-mel of no sound: numbers of a shard that have rotted.

    Raises:
        ConfigError: If a number is not finite, below the floor, or louder than anything that is
            read.
    """
    lowest, highest = (float(end) for end in frames.aminmax())
    floor = config.log_floor - _HALF_ROUNDING * abs(config.log_floor)
    if not (floor <= lowest and highest <= math.log(MAX_MAGNITUDE * config.window_samples)):
        raise ConfigError(
            f"expected log-mels of sound, got numbers from {lowest:g} to {highest:g} in those of "
            f"'{name}': its shard is damaged; remove that file (the one in index.jsonl) and run "
            "python -m pipelines.preprocess as before, which makes it again"
        )


@lru_cache(maxsize=1)
def memory_bytes() -> float:
    """The memory that there is for this process; infinite where it cannot be told."""
    limits = [math.inf]
    with suppress(AttributeError, ValueError, OSError):
        limits.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    for name in _CONTAINER_LIMITS:
        with suppress(ValueError, OSError):  # a ValueError where it says "max"
            limits.append(float(int(Path(name).read_text(encoding="ascii"))))
    return min(limits)


def _name_rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
