"""Log-mel to waveform: the vocoder and a few Griffin-Lim steps, or Griffin-Lim alone.

Both are one iteration on one grid of frames: from the phase that the vocoder predicted, or from a
random one where there is no vocoder.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.chunks import STEP_FRAMES
from audiovae.coherence import turn
from audiovae.config import SpectrogramConfig
from audiovae.errors import ConfigError, ShapeError
from audiovae.models.blocks import step_mask
from audiovae.models.frames import FrameGrid
from audiovae.models.fused_vocoder import FusedVocoder, fast_dtype
from audiovae.models.griffin_lim import polish
from audiovae.models.vocoder import Vocoder
from audiovae.spectrogram import hann_window, inverse_mel_filterbank

GRIFFIN_LIM_STEPS = 32
DEFAULT_POLISH_STEPS = 16
"""Griffin-Lim steps after the vocoder: chosen by docs/quality.md's table of quality and time."""
MAX_POLISH_STEPS = 64


class Synthesizer:
    """Makes sound of log-mels. Safe to share between threads.

    Attributes:
        context_frames: Frames on each side that a frame's samples depend on.
    """

    def __init__(
        self,
        vocoder: Vocoder | None,
        polish_steps: int = DEFAULT_POLISH_STEPS,
    ) -> None:
        """Take a vocoder whose weights do not change any more.

        Args:
            vocoder: None for Griffin-Lim under the default spectrogram.
            polish_steps: Griffin-Lim steps from the vocoder's phase, 0 to `MAX_POLISH_STEPS`.

        Raises:
            ConfigError: If there are too few or too many steps.
        """
        if not 0 <= polish_steps <= MAX_POLISH_STEPS:
            raise ConfigError(
                f"expected 0 to {MAX_POLISH_STEPS} polishing steps, got {polish_steps}; "
                f"{DEFAULT_POLISH_STEPS} is a good choice"
            )
        self._vocoder = vocoder
        self._config = SpectrogramConfig() if vocoder is None else vocoder.spectrogram
        self._steps = GRIFFIN_LIM_STEPS if vocoder is None else polish_steps
        # Windows that reach into another's; each step looks that far.
        neighbours = math.ceil(self._config.window_samples / self._config.hop_samples) - 1
        first = neighbours if vocoder is None else vocoder.context_frames()
        self.context_frames = first + neighbours * self._steps

    def __call__(
        self,
        log_mel: Tensor,
        num_frames: Tensor,
        first_frames: Tensor | None = None,
        angles: Tensor | None = None,
    ) -> Tensor:
        """Make sound of a batch of log-mels.

        What a log-mel sounds like does not depend on what else is in the batch.

        Args:
            log_mel: `[batch, mel, frame]`, natural log of magnitude.
            num_frames: `[batch]`; frames beyond these are padding and become silence.
            first_frames: `[batch]`, place of each first frame in its file, for Griffin-Lim: two
                windows of one file then agree where they overlap. 0 by default.
            angles: `[batch, band, frame]`, radians between each channel and the first one of its
                file (`coherence.py`). All are in phase by default.

        Returns:
            `[batch, sample]`, hop samples a frame.

        Raises:
            ShapeError: If `log_mel` is not `[batch, mel, frame]`.
        """
        if log_mel.ndim != 3 or log_mel.shape[1] != self._config.num_mels:
            raise ShapeError(
                f"expected log_mel [batch, {self._config.num_mels}, frame], "
                f"got {list(log_mel.shape)}"
            )
        if first_frames is None:
            first_frames = torch.zeros_like(num_frames)
        if log_mel.device.type != "cpu":
            return self._sound(log_mel, num_frames, first_frames, angles)
        # One at a time, at its own length: what one row needs fits the cache.
        samples = log_mel.shape[2] * self._config.hop_samples
        rows = []
        for row, count in enumerate(num_frames.tolist()):
            own = slice(row, row + 1)
            turned = None if angles is None else angles[own, :, :count]
            sound = self._sound(log_mel[own, :, :count], num_frames[own], first_frames[own], turned)
            rows.append(functional.pad(sound, (0, samples - sound.shape[1])))
        return torch.cat(rows)

    def _sound(
        self, log_mel: Tensor, num_frames: Tensor, first_frames: Tensor, angles: Tensor | None
    ) -> Tensor:
        mask = step_mask(num_frames, log_mel.shape[2], 1)[:, 0]  # [batch, frame]
        if self._vocoder is None:
            return griffin_lim(
                log_mel,
                self._config,
                self._steps,
                mask=mask,
                first_frames=first_frames,
                angles=angles,
            )
        first = self._fused_vocoder.predict(log_mel, mask)
        direction, grid = first.direction, _grid(mask, self._config)
        if angles is not None:
            direction = turn(direction, angles, self._config)
        return polish(first.magnitude, direction, grid, self._steps, first.levels)

    @cached_property
    def _fused_vocoder(self) -> FusedVocoder:
        assert self._vocoder is not None
        return FusedVocoder(self._vocoder, fast_dtype(self._vocoder.inverse_mel.device))


def griffin_lim(
    log_mel: Tensor,
    config: SpectrogramConfig,
    steps: int = GRIFFIN_LIM_STEPS,
    seed: int = 0,
    mask: Tensor | None = None,
    first_frames: Tensor | None = None,
    angles: Tensor | None = None,
) -> Tensor:
    """Find a waveform whose spectrogram fits, from random phase (Griffin and Lim, 1984).

    A frame's first phase depends on the seed and on its place in the file alone, so neither the
    batch nor the windows a file is cut into are heard.

    Args:
        log_mel: `[batch, mel, frame]`, natural log of magnitude.
        config: Frame settings.
        steps: Of the accelerated variant.
        seed: Of the first phase.
        mask: `[batch, frame]` of 0 and 1: frames that are signal. All are by default.
        first_frames: `[batch]`, place of each first frame in its file; 0 by default.
        angles: `[batch, band, frame]`, radians that the first phase is turned by.

    Returns:
        `[batch, sample]`, hop samples a frame.
    """
    device = log_mel.device
    frames = torch.arange(log_mel.shape[2], device=device)
    places = frames if first_frames is None else frames + first_frames[:, None]
    mask = torch.ones(len(log_mel), len(frames), device=device) if mask is None else mask
    audible = log_mel.float().transpose(1, 2).exp()  # [batch, frame, mel]
    magnitude = functional.linear(audible, inverse_mel_filterbank(config).to(device))
    magnitude = magnitude.clamp(min=config.floor) * mask[..., None]
    directions = _random_directions(config.num_bins, seed).to(device)[places % STEP_FRAMES]
    directions = directions.expand(magnitude.shape)
    if angles is not None:
        directions = turn(directions, angles, config)
    return polish(magnitude, directions, _grid(mask, config), steps)


def _grid(mask: Tensor, config: SpectrogramConfig) -> FrameGrid:
    return FrameGrid(mask, hann_window(config.window_samples, mask.device), config)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _random_directions(num_bins: int, seed: int) -> Tensor:
    """Complex `[frame, bin]` of modulus 1 for the frames of one chunk; the next begins anew."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.rand(STEP_FRAMES, num_bins, generator=generator)
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
