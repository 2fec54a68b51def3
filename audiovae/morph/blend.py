"""Two whole sounds, and everything between them.

Both are held in memory as log-mel, so their length is limited. Each is brought to one length by
stretching its log-mel in time, which leaves pitch where it is, and then encoded: latents of one
shape, of which any point between is a sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from audiovae.audio import Clip, Waveform, mixed_to_mono, read_audio, resample, write_audio
from audiovae.audio.resample import resampled_length
from audiovae.checkpoint import Model
from audiovae.chunks import chunk_range
from audiovae.coherence import Angles, measure_angles
from audiovae.compressed import quality_lambda
from audiovae.config import SpectrogramConfig
from audiovae.errors import UnsupportedAudioError
from audiovae.gains import num_blocks
from audiovae.morph.settings import MorphSettings, glide_course
from audiovae.reconstruct import Reconstructor
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.stretches import Stopwatch, Stretch
from audiovae.timbre.moves import BlendMove, Course

MAX_BLEND_SECONDS = 600.0


class Blend:
    """Two sounds, and everything between them.

    The result has the sample rate and channels of the first. At an amount between, both are
    stretched in time, without change of pitch, to a length between; a glide lasts as long as their
    mean. A second sound with another number of channels is mixed to one.
    """

    def __init__(self, first: Path, second: Path, model: Model, settings: MorphSettings) -> None:
        """Read both.

        Raises:
            AudioReadError: If one cannot be read, or is too long to be held whole.
            ConfigError: If the model has no such quality.
        """
        self._model, self._settings = model, settings
        self._log_lambda = quality_lambda(model, settings.quality)
        config = model.config.spectrogram
        clips = [_read_whole(path) for path in (first, second)]
        self._first, self._seconds = clips[0], [clip.duration_seconds for clip in clips]
        waveforms = [resample(one.waveform, one.sample_rate, config.sample_rate) for one in clips]
        if clips[1].num_channels != clips[0].num_channels:
            waveforms[1] = np.repeat(mixed_to_mono(waveforms[1]), clips[0].num_channels, axis=0)
        self._waveforms = waveforms
        self._channel_of = _identical_in_both(*waveforms)
        coded = sorted(set(self._channel_of))
        self._log_mels = [
            log_mel_spectrogram(torch.from_numpy(one[coded]), config) for one in waveforms
        ]

    def step(self, destination: Path, amount: float) -> None:
        """Write the sound at one amount."""
        share = min(max(amount, 0.0), 1.0)  # beyond an end, the length stays that of the end
        seconds = (1 - share) * self._seconds[0] + share * self._seconds[1]
        self._write(destination, seconds, Course(stop=amount, curve=self._settings.curve))

    def glide(self, destination: Path, glide_seconds: float) -> None:
        """Write one sound that goes from one to the other in its first seconds; 0: in all."""
        seconds = sum(self._seconds) / 2
        config = self._model.config.spectrogram
        course = glide_course(seconds, glide_seconds, config, self._settings.curve)
        self._write(destination, seconds, course)

    def _write(self, destination: Path, seconds: float, course: Course) -> None:
        config, settings = self._model.config.spectrogram, self._settings
        rate = self._first.sample_rate
        num_samples = max(1, round(seconds * rate))
        stretch = Stretch.whole(resampled_length(num_samples, rate, config.sample_rate), config)
        frames = stretch.frames(config)
        here, there = (_stretched(log_mel, frames) for log_mel in self._log_mels)
        move = BlendMove(there, course, settings.levels, settings.keep_loudness)
        reconstructor = Reconstructor(
            self._model,
            move=None if move.is_identity else move,
            polish_steps=settings.polish_steps,
        )
        image = _Image(self._waveforms, self._channel_of, course, config)
        signal = _LogMelSignal(stretch, config, self._log_lambda, image, here)
        watch = Stopwatch()
        sound = reconstructor.sound(reconstructor.code([signal], watch), watch)[0]
        sound = resample(sound, config.sample_rate, rate)[:, :num_samples]
        clip = Clip(sound, rate, self._first.bit_depth)
        write_audio(destination, clip, format=settings.format)


@dataclass(frozen=True)
class _Image:
    """How the channels of two sounds move together, and everything between.

    Attributes:
        waveforms: `[channel, sample]` of each.
        channel_of: For each channel the one that is identical to it in both.
        course: From the first to the second.
        config: Of the log-mels.
    """

    waveforms: Sequence[Waveform]
    channel_of: tuple[int, ...]
    course: Course
    config: SpectrogramConfig

    def angles_in(self, chunk: int, total: int) -> dict[int, Angles | None]:
        """Angles of a chunk of `total` frames into which both were stretched."""
        frames = chunk_range(chunk, total)
        blocks = num_blocks(len(frames))
        middles = (torch.arange(blocks) + 0.5) * len(frames) / blocks
        share = self.course.amounts(frames)[middles.long()].clamp(0, 1).numpy()
        found: dict[int, Angles | None] = {0: None}
        for channel in sorted(set(self.channel_of) - {0}):
            ends = []
            for whole in map(torch.from_numpy, self.waveforms):
                start, stop = (at * whole.shape[1] // total for at in (frames.start, frames.stop))
                one, other = whole[0, start:stop], whole[channel, start:stop]
                ends.append(measure_angles(one, other, len(frames), self.config))
            mixed = np.rint(ends[0] + share * (ends[1] - ends[0])).astype(np.int32)
            found[channel] = mixed if mixed.any() else None
        return found


@dataclass(frozen=True)
class _LogMelSignal:
    """A whole sound that is log-mel already."""

    stretch: Stretch
    config: SpectrogramConfig
    log_lambda: float | None
    image: _Image
    whole: Tensor  # [channel, mel, frame]

    @property
    def sources(self) -> Mapping[int, tuple[int, ...]]:
        """The same in every chunk."""
        return dict.fromkeys(self.stretch.chunks_needed(self.config), self.image.channel_of)

    @cached_property
    def angles(self) -> Mapping[int, Mapping[int, Angles | None]]:
        """Those between the two sounds'."""
        total = self.stretch.frames(self.config)
        needed = self.stretch.chunks_needed(self.config)
        return {chunk: self.image.angles_in(chunk, total) for chunk in needed}

    def log_mel(self) -> Tensor:
        """All of it."""
        frames = self.stretch.frames_needed(self.config)
        return self.whole[:, :, frames.start : frames.stop]


def _read_whole(path: Path) -> Clip:
    clip = read_audio(path, duration_seconds=MAX_BLEND_SECONDS + 1)
    if clip.duration_seconds > MAX_BLEND_SECONDS:
        raise UnsupportedAudioError(
            f"{path}: expected at most {MAX_BLEND_SECONDS:.0f} s to blend, got more; "
            "cut the file, or move the timbre alone, which takes any length"
        )
    return clip


def _identical_in_both(first: Waveform, second: Waveform) -> tuple[int, ...]:
    """For each channel the first one that is identical to it in both sounds."""
    found: list[int] = []
    for index in range(first.shape[0]):
        same = (
            other
            for other in found
            if np.array_equal(first[other], first[index])
            and np.array_equal(second[other], second[index])
        )
        found.append(next(same, index))
    return tuple(found)


def _stretched(log_mel: Tensor, frames: int) -> Tensor:
    """`[channel, mel, frame]` over another number of frames, at the same pitch."""
    if log_mel.shape[2] == frames:
        return log_mel
    return functional.interpolate(log_mel, size=frames, mode="linear", align_corners=False)
