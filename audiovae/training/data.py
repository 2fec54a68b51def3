"""Training data: a whole corpus in memory (or memory-mapped), random crops drawn from it.

Clips lie end to end in one array; a crop is a clip drawn in proportion to its length and a place
in it. There is no loader process: on a GPU the array sits on the card (Measured: three hours of
audio as int16 are under 1 GB), and drawing a batch is one gather.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiovae import audio
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioReadError, ConfigError
from audiovae.spectrogram import log_mel_spectrogram, log_mel_to_db

_LOG = logging.getLogger(__name__)
_INT16_SCALE = 32767.0
_VALIDATION_PERCENT = 3
_MAX_VALIDATION_CLIPS = 48

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Corpus:
    """Clips end to end in one array.

    Attributes:
        data: `[position, ...]`: samples (int16), or log-mel frames `[position, mel]` (float16).
        starts: `[clip]`, first position of each clip.
        lengths: `[clip]`, positions of each clip.
        names: Path of each clip, relative to the corpus.
    """

    data: Tensor
    starts: Tensor
    lengths: Tensor
    names: tuple[str, ...]

    def clip(self, index: int) -> Tensor:
        """Data of one clip."""
        start = int(self.starts[index])
        return self.data[start : start + int(self.lengths[index])]

    def subset(self, indices: Sequence[int]) -> Corpus:
        """The same data seen as fewer clips."""
        keep = torch.as_tensor(indices, dtype=torch.long, device=self.starts.device)
        names = tuple(self.names[index] for index in indices)
        return Corpus(self.data, self.starts[keep], self.lengths[keep], names)

    def to(self, device: torch.device) -> Corpus:
        """The corpus on another device."""
        return Corpus(
            self.data.to(device), self.starts.to(device), self.lengths.to(device), self.names
        )

    def split(self) -> tuple[Corpus, Corpus]:
        """Training and validation clips; a clip's side depends on its name alone."""
        ranked = sorted(range(len(self.names)), key=lambda i: _name_hash(self.names[i]))
        count = min(len(ranked) * _VALIDATION_PERCENT // 100, _MAX_VALIDATION_CLIPS)
        count = max(count, 1 if len(ranked) > 1 else 0)
        held_back = sorted(ranked[:count])
        kept = sorted(ranked[count:])
        return self.subset(kept), self.subset(held_back or kept)


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
    corpus: Corpus, batch_size: int, crop: int, generator: torch.Generator, spill: int = 0
) -> Crops:
    """Draw random crops, clips in proportion to their length.

    Args:
        corpus: Where from.
        batch_size: Crops to draw.
        crop: Positions of a crop.
        generator: A CPU generator; its state is all the randomness there is.
        spill: How far a crop may reach over a clip's end, so that ends are learnt too.
    """
    weights = corpus.lengths.double().cpu()
    clips = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
    lengths = corpus.lengths.cpu()[clips]
    room = (lengths - crop + spill).clamp(min=0) + 1
    places = (torch.rand(batch_size, generator=generator, dtype=torch.float64) * room).long()
    device = corpus.data.device
    first = (corpus.starts.cpu()[clips] + places).to(device)
    valid = (lengths - places).clamp(max=crop).to(device)
    offsets = torch.arange(crop, device=device)
    inside = offsets[None] < valid[:, None]
    index = (first[:, None] + offsets[None]).clamp(max=corpus.data.shape[0] - 1)
    data = corpus.data[index]
    data = data * inside.reshape(inside.shape + (1,) * (data.ndim - 2)).to(data.dtype)
    return Crops(data, valid)


def load_waveforms(
    directory: Path, sample_rate: int, workers: int = 2, progress: Progress | None = None
) -> Corpus:
    """Decode every audio file below a directory to mono int16 at one rate.

    Files that are no audio are left out; unreadable ones are logged and left out.

    Raises:
        ConfigError: If there is no directory or no readable audio in it.
    """
    paths = _audio_paths(directory)

    def decode(path: Path) -> NDArray[np.int16] | None:
        try:
            waveform = audio.read_audio(path, sample_rate=sample_rate).waveform.mean(axis=0)
        except AudioReadError as error:
            _LOG.warning("left out of training: %s", error)
            return None
        scaled: NDArray[np.int16] = np.clip(
            np.round(waveform * _INT16_SCALE), -32768, 32767
        ).astype(np.int16)
        return scaled

    clips, names = [], []
    with ThreadPoolExecutor(workers) as pool:
        for done, (path, clip) in enumerate(zip(paths, pool.map(decode, paths), strict=True)):
            if clip is not None:
                clips.append(clip)
                names.append(path.relative_to(directory).as_posix())
            if progress:
                progress(done + 1, len(paths))
    if not clips:
        raise ConfigError(
            f"{directory}: expected readable audio files, got none of {len(paths)} that could be "
            "decoded; see the warnings above"
        )
    return _corpus_of(clips, names)


def log_mel_corpus(waveforms: Corpus, config: SpectrogramConfig) -> Corpus:
    """Log-mel of every clip of a waveform corpus, as float16 frames `[frame, mel]`."""
    clips = []
    for index in range(len(waveforms.names)):
        samples = waveforms.clip(index).float() / _INT16_SCALE
        clips.append(log_mel_spectrogram(samples[None], config)[0].T.half().cpu().numpy())
    return _corpus_of(clips, list(waveforms.names))


def to_float(samples: Tensor) -> Tensor:
    """Samples of a waveform corpus as float32 in [-1, 1]."""
    return samples.float() / _INT16_SCALE


def log_mel_statistics(corpus: Corpus, config: SpectrogramConfig) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[mel]` over all frames of a log-mel corpus.

    Raises:
        ConfigError: If the corpus is digital silence, which no model can be standardised by.
    """
    total = torch.zeros(config.num_mels, dtype=torch.float64)
    squares = torch.zeros_like(total)
    for index in range(len(corpus.names)):
        frames = corpus.clip(index).double().cpu()
        total += frames.sum(dim=0)
        squares += frames.square().sum(dim=0)
    count = int(corpus.lengths.sum())
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    if float(variance.max()) < 1e-6:
        raise ConfigError("expected training audio with sound in it, got silence only")
    return mean.float(), variance.sqrt().clamp(min=0.1).float()


def augment_log_mel(
    log_mel: Tensor, config: SpectrogramConfig, generator: torch.Generator
) -> Tensor:
    """Vary level, tone and band limit of `[batch, mel, frame]`, and cut in silence.

    A gain is an addition in log-mel, so all of this costs nothing beside the model; values stay
    at or above the floor, as the spectrogram's do.
    """
    batch, num_mels, frames = log_mel.shape

    def uniform(low: float, high: float) -> Tensor:
        draw = torch.rand(batch, 1, 1, generator=generator) * (high - low) + low
        return draw.to(log_mel.device)

    def happens(probability: float) -> Tensor:
        return uniform(0, 1) < probability

    decibel = 1.0 / float(log_mel_to_db(torch.ones(1)))
    gain = torch.where(happens(0.6), uniform(-24, 9) * decibel, torch.zeros_like(uniform(0, 1)))
    band = torch.arange(num_mels, device=log_mel.device)[None, :, None] / num_mels
    tilt = torch.where(happens(0.3), uniform(-9, 9) * decibel, torch.zeros_like(gain))
    changed = log_mel + gain + tilt * (band - 0.5)
    cutoff = torch.where(happens(0.1), uniform(0.45, 1.0), torch.full_like(gain, 2.0))
    changed = torch.where(band > cutoff, torch.full_like(changed, config.log_floor), changed)
    position = torch.arange(frames, device=log_mel.device)[None, None]
    start = uniform(0, frames)
    stop = start + uniform(4, frames / 2)
    silent = happens(0.06) & (position >= start) & (position < stop)
    changed = changed.masked_fill(silent, config.log_floor)
    return changed.clamp(min=config.log_floor)


def augment_waveform(waveform: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Teach what archives hold: levels, band limits, silence, fades and clipping.

    Args:
        waveform: `[batch, sample]`, float32.
        sample_rate: Hz.
        generator: A CPU generator.
    """
    batch, samples = waveform.shape
    device = waveform.device

    def uniform(low: float, high: float) -> Tensor:
        draw = torch.rand(batch, 1, generator=generator) * (high - low) + low
        return draw.to(device)

    def happens(probability: float) -> Tensor:
        return uniform(0, 1) < probability

    peak = waveform.abs().amax(dim=1, keepdim=True).clamp(min=1e-4)
    level_db = torch.where(happens(0.7), uniform(-24, 0), uniform(-60, 0))
    changed = waveform * torch.where(
        happens(0.7), 10 ** (level_db / 20) / peak, torch.ones_like(peak)
    )
    spectrum = torch.fft.rfft(changed)
    frequency = torch.linspace(0, sample_rate / 2, spectrum.shape[1], device=device)
    cutoff = torch.where(happens(0.2), 1000 * 2 ** uniform(1.0, 4.3), torch.full_like(peak, 1e9))
    steepness = uniform(50, 400)
    changed = torch.fft.irfft(spectrum * torch.sigmoid((cutoff - frequency) / steepness), n=samples)
    position = torch.arange(samples, device=device)[None]
    start, length = uniform(0, samples), uniform(samples / 64, samples / 2)
    silent = happens(0.1) & (position >= start) & (position < start + length)
    fade = torch.where(
        happens(0.1), ((position - start) / length).clamp(0, 1), torch.ones_like(changed)
    )
    overdriven = torch.where(happens(0.05), uniform(1, 4), torch.ones_like(peak))
    changed = changed.masked_fill(silent, 0.0) * fade * overdriven
    return changed.clamp(-1, 1)


def _audio_paths(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise ConfigError(f"{directory}: expected a directory of audio, got none; check --data")
    found = (Path(root) / name for root, _, names in os.walk(directory) for name in names)
    paths = sorted(path for path in found if audio.claims_to_be_audio(path))
    if not paths:
        raise ConfigError(f"{directory}: expected audio files, found none; check --data")
    return paths


def _corpus_of(clips: list[NDArray[Any]], names: list[str]) -> Corpus:
    lengths = torch.tensor([len(clip) for clip in clips], dtype=torch.long)
    starts = torch.cumsum(lengths, 0) - lengths
    return Corpus(torch.from_numpy(np.concatenate(clips)), starts, lengths, tuple(names))


def _name_hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
