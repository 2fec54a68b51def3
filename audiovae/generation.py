"""New sounds from the prior, and sounds that are partly a given one.

A drawn log-mel is kept below what a full-scale sine reaches in each band; a sound that owes
nothing to a clip is then brought to one loudness, and every sound is kept from clipping.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from audiovae.analysis.metrics import LOUDNESS_BLOCK_SECONDS, integrated_loudness_lufs
from audiovae.arithmetic import Along, interpolate
from audiovae.audio import Clip, Waveform, mixed_to_mono, resample
from audiovae.audio.resample import resampled_length
from audiovae.checkpoint import Model
from audiovae.compressed import quality_lambda
from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.latents import Conditions, Latents
from audiovae.models.conditioning.label import label_index
from audiovae.models.conditioning.pitch import constant_pitch
from audiovae.reconstruct import Reconstructor
from audiovae.sampling import Kept, draw, encode_whole, keep_beginning, keep_levels
from audiovae.spectrogram import log_mel_spectrogram, mel_filterbank
from audiovae.stretches import Coding, Stopwatch, Stretch

MAX_SECONDS: Final = 600.0
"""The longest sound: it is drawn in one piece."""
_LOUDNESS_LUFS = -20.0
_PEAK = 0.95


@dataclass(frozen=True)
class SamplingSettings:
    """What sounds are drawn under.

    Attributes:
        temperatures: One a level, coarse to fine: 1 is the prior, 0 its most likely sound.
        quality: 1 to 8, how much detail, for a model that is conditioned on it.
        label: Class, for a model that is conditioned on labels.
        pitch_hz: Fundamental frequency, for a model that is conditioned on pitch.
    """

    temperatures: tuple[float, ...]
    quality: int = 6
    label: str | None = None
    pitch_hz: float | None = None


class Sampler:
    """Draws sounds with one model."""

    def __init__(self, model: Model, settings: SamplingSettings) -> None:
        """Refuse what the model cannot be told.

        Raises:
            ConfigError: If it knows no such label, or is told no pitch.
        """
        if settings.pitch_hz is not None and model.config.pitch is None:
            raise ConfigError(
                f"expected a model that is told a pitch, got {model.name}, which is not; "
                "train one with configs/family/conditional_vae.toml"
            )
        if settings.label is not None:
            label_index(model.config.label, settings.label)
        self._model, self._settings = model, settings
        self._config = model.config.spectrogram
        self._log_lambda = quality_lambda(model, settings.quality)
        self._reconstructor = Reconstructor(model)
        self._ceiling = _full_scale_log_mel(self._config).to(model.device)

    def fresh(self, seconds: float, seed: int) -> Clip:
        """A sound that owes nothing to any clip."""
        samples = self._num_samples(seconds)
        frames = -(-samples // self._config.hop_samples)
        drawn = self._draw(frames, seed, None)
        sound = self._sound(drawn, samples)
        # A sound shorter than a block is measured as if it went on.
        times = math.ceil(LOUDNESS_BLOCK_SECONDS * self._config.sample_rate / samples)
        heard = torch.from_numpy(sound).repeat(1, times)
        loudness = integrated_loudness_lufs(heard, self._config.sample_rate)
        assert loudness is not None
        sound = sound * np.float32(10 ** ((_LOUDNESS_LUFS - loudness) / 20))
        return Clip(_below_clipping(sound), self._config.sample_rate)

    def log_mel(self, num_frames: int, seed: int) -> Tensor:
        """What such a sound is made from: `[mel, frame]`, natural log of magnitude."""
        return self._draw(num_frames, seed, None)[0]

    def varied(self, clip: Clip, levels: Collection[int], seed: int) -> Clip:
        """A clip of which some levels (0 is the coarsest) are kept and the others drawn."""
        latents = self._latents(clip)
        drawn = self._draw(int(latents.num_frames[0]), seed, keep_levels(latents, levels))
        return self._like(clip, drawn, clip.num_samples)

    def continued(self, clip: Clip, seconds: float, seed: int) -> Clip:
        """A clip, decoded, and `seconds` more of it.

        What is kept ends with the last step of each level that the clip covers.
        """
        latents = self._latents(clip)
        known = int(latents.num_frames[0])
        self._num_samples(clip.duration_seconds + seconds)
        more = math.ceil(seconds * self._config.frames_per_second)
        drawn = self._draw(known + more, seed, keep_beginning(latents, known))
        return self._like(clip, drawn, clip.num_samples + round(seconds * clip.sample_rate))

    def between(
        self, first: Clip, second: Clip, amounts: Sequence[float], along: Along = "line"
    ) -> list[Clip]:
        """Sounds on the way from one clip to another; the shorter is followed by silence.

        They have the first one's sample rate, and one channel unless both have the same number.
        """
        rate = self._config.sample_rate
        waves = [resample(clip.waveform, clip.sample_rate, rate) for clip in (first, second)]
        if len(waves[0]) != len(waves[1]):
            waves = [mixed_to_mono(wave) for wave in waves]
        length = max(wave.shape[1] for wave in waves)
        padded = [np.pad(wave, ((0, 0), (0, length - wave.shape[1]))) for wave in waves]
        ends = [self._latents(Clip(wave, rate)) for wave in padded]
        sounds = []
        for amount in amounts:
            latents = interpolate(ends[0], ends[1], amount, along=along)
            sound = self._sound(self._decode(latents), length)
            sound = resample(sound, rate, first.sample_rate)
            sounds.append(Clip(_below_clipping(sound), first.sample_rate, first.bit_depth))
        return sounds

    def _draw(self, frames: int, seed: int, kept: Kept | None) -> Tensor:
        conditions = self._conditions(1, frames) if kept is None else kept.latents.conditions
        if kept is not None:
            told = self._conditions(kept.latents.batch_size, frames)
            conditions = replace(conditions, label=told.label, pitch=told.pitch)
        if self._model.vae.timbre is not None and conditions.timbre is None:
            conditions = replace(conditions, timbre=self._any_timbre(seed))
        return draw(self._model, frames, conditions, self._settings.temperatures, seed, kept)

    @torch.inference_mode()
    def _decode(self, latents: Latents) -> Tensor:
        frames = int(latents.num_frames[0])
        padded = latents.groups[0].shape[2] * latents.strides[0]
        return self._model.vae.decode(latents, padded)[:, :, :frames]

    def _latents(self, clip: Clip) -> Latents:
        self._num_samples(clip.duration_seconds)
        waveform = resample(clip.waveform, clip.sample_rate, self._config.sample_rate)
        log_mel = log_mel_spectrogram(torch.from_numpy(waveform), self._config)
        conditions = self._conditions(len(waveform), log_mel.shape[2])
        return encode_whole(self._model, log_mel, conditions)

    def _conditions(self, rows: int, frames: int) -> Conditions:
        settings, device = self._settings, self._model.device
        label = pitch = None
        if settings.label is not None:
            index = label_index(self._model.config.label, settings.label)
            label = torch.full((rows,), index, device=device)
        if settings.pitch_hz is not None:
            padded = frames + -frames % self._model.config.vae.total_stride
            track = constant_pitch(settings.pitch_hz, padded)
            pitch = track.to(device).expand(rows, -1, -1)
        quality = Conditions.at_lambda(self._log_lambda, rows, device)
        return replace(quality, label=label, pitch=pitch)

    def _any_timbre(self, seed: int) -> Tensor:
        """A timbre code of the standard normal distribution that codes are held to."""
        timbre = self._model.config.timbre
        assert timbre is not None
        generator = torch.Generator().manual_seed(seed)
        code = torch.randn(1, timbre.channels, generator=generator)
        return self._settings.temperatures[0] * code.to(self._model.device)

    def _like(self, clip: Clip, log_mel: Tensor, num_samples: int) -> Clip:
        """Sound of the sample rate of a clip, `num_samples` long."""
        rate = self._config.sample_rate
        length = resampled_length(num_samples, clip.sample_rate, rate)
        sound = self._sound(log_mel, min(length, log_mel.shape[2] * self._config.hop_samples))
        sound = resample(sound, rate, clip.sample_rate)[:, :num_samples]
        return Clip(_below_clipping(sound), clip.sample_rate, clip.bit_depth)

    def _sound(self, log_mel: Tensor, num_samples: int) -> Waveform:
        """`[channel, sample]` at the model's rate, of `[channel, mel, frame]`."""
        bounded = torch.minimum(log_mel, self._ceiling[:, None]).cpu()
        stretch = Stretch.whole(num_samples, self._config)
        coding = Coding(stretch, tuple(range(len(bounded))), tuple(bounded))
        return self._reconstructor.sound([coding], Stopwatch())[0]

    def _num_samples(self, seconds: float) -> int:
        if not 0 < seconds <= MAX_SECONDS:
            raise ConfigError(
                f"expected a sound of up to {MAX_SECONDS:g} s, got {seconds:g} s; "
                "it is drawn in one piece: ask for less, or cut the clip"
            )
        return max(1, round(seconds * self._config.sample_rate))


def _full_scale_log_mel(config: SpectrogramConfig) -> Tensor:
    """`[mel]`: what a sine of amplitude 1 reaches in each band."""
    largest = mel_filterbank(config).amax(dim=1)
    return (largest * (config.window_samples / 4)).clamp(min=config.floor).log()


def _below_clipping(sound: Waveform) -> Waveform:
    peak = float(np.abs(sound).max(initial=0.0))
    return sound if peak <= _PEAK else sound * np.float32(_PEAK / peak)
