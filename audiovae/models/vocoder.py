"""The vocoder: log-mel to waveform through a predicted STFT.

A Vocos-shaped network (Siuzdak, 2023, arXiv:2306.00814): ConvNeXt blocks over log-mel frames, a
head that gives magnitude and phase of every STFT bin, and an inverse STFT. The pseudo-inverse of
the mel filterbank gives the first guess of the log-magnitude and the network corrects it (FreeV,
Lv et al., 2024, arXiv:2406.08196); the phase comes from two channels through atan2, as in APNet 2
(Du et al., 2023, arXiv:2311.11545).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.config import SpectrogramConfig, VocoderConfig
from audiovae.errors import ShapeError
from audiovae.models.blocks import ChannelNorm, ConvNeXtBlock, step_mask
from audiovae.models.frames import FrameGrid
from audiovae.models.griffin_lim import BandLevels, polish
from audiovae.models.partials import BarePartials
from audiovae.spectrogram import inverse_mel_filterbank, mel_filterbank

MAX_LOG_MAGNITUDE = 8.0  # e^8 is above a full-scale sine under this window (512)
LOG_MEL_CENTRE, LOG_MEL_SPREAD = -5.0, 2.5  # brings a log-mel near zero mean, unit deviation


@dataclass(frozen=True)
class PredictedSTFT:
    """What the head gives.

    Attributes:
        log_magnitude: `[batch, bin, frame]`, natural log.
        phase: `[batch, bin, frame]`, radians in (-pi, pi], referred to the window's centre.
        log_mel: `[batch, mel, frame]`, what it was predicted from.
    """

    log_magnitude: Tensor
    phase: Tensor
    log_mel: Tensor

    def learnt(self) -> tuple[Tensor, ...]:
        """All through which a gradient of the sound reaches the networks before it."""
        parts = (self.log_magnitude, self.phase, self.log_mel)
        return tuple([part for part in parts if part.requires_grad])


class Vocoder(nn.Module):
    """Log-mel `[batch, mel, frame]` to waveform `[batch, sample]`, hop samples a frame."""

    inverse_mel: Tensor
    filters: Tensor
    window: Tensor
    signs: Tensor

    def __init__(self, config: VocoderConfig, spectrogram: SpectrogramConfig) -> None:
        """Build the network; the pseudo-inverse is computed from the spectrogram's filters."""
        super().__init__()
        self.config, self.spectrogram = config, spectrogram
        bins = spectrogram.num_bins
        inverse = inverse_mel_filterbank(spectrogram).clone()
        self.register_buffer("inverse_mel", inverse, persistent=False)  # [bin, mel]
        self.register_buffer("filters", mel_filterbank(spectrogram).clone(), persistent=False)
        window = torch.hann_window(spectrogram.window_samples, periodic=True)
        self.register_buffer("window", window, persistent=False)
        # Even bins as they are, odd ones negated: moves the phase reference from a window's start
        # to its centre, where phase varies slowly from bin to bin.
        signs = 1.0 - 2.0 * (torch.arange(bins) % 2)
        self.register_buffer("signs", signs, persistent=False)
        self.partials = BarePartials(spectrogram)
        kernel = config.kernel_size
        self.embed = nn.Conv1d(spectrogram.num_mels, config.width, kernel, padding=kernel // 2)
        self.embed_norm = ChannelNorm(config.width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(
                config.width,
                config.expansion,
                kernel,
                residual_scale=1 / config.num_blocks,
            )
            for _ in range(config.num_blocks)
        )
        self.norm = ChannelNorm(config.width)
        self.magnitude_head = nn.Conv1d(config.width, bins, 1)
        self.phase_head = nn.Conv1d(config.width, 2 * bins, 1)
        nn.init.zeros_(self.magnitude_head.weight)
        nn.init.zeros_(cast(Tensor, self.magnitude_head.bias))

    def context_frames(self) -> int:
        """Frames on each side that a frame's samples depend on.

        The embedding and each block reach half a kernel; the inverse STFT as many frames more as
        have windows that reach into this one's samples (two at the default hop).
        """
        reach = self.config.kernel_size // 2
        hop = self.spectrogram.hop_samples
        overlap = math.ceil((self.spectrogram.window_samples - hop) / (2 * hop))
        return reach * (1 + self.config.num_blocks) + overlap

    def forward(self, log_mel: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Make sound.

        Args:
            log_mel: `[batch, mel, frame]`, natural log of magnitude.
            num_frames: `[batch]`; frames beyond these are padding. All are signal by default.

        Returns:
            `[batch, sample]`, `frame * hop_samples` samples; zero beyond a signal's end.
        """
        return self.polish(self.predict(log_mel, num_frames), 0, num_frames)

    def predict(self, log_mel: Tensor, num_frames: Tensor | None = None) -> PredictedSTFT:
        """Predict the STFT whose frames lie where the log-mel's do."""
        if log_mel.ndim != 3 or log_mel.shape[1] != self.spectrogram.num_mels:
            raise ShapeError(
                f"expected log_mel [batch, {self.spectrogram.num_mels}, frame], "
                f"got {list(log_mel.shape)}"
            )
        mask = self._mask(log_mel, num_frames)
        features = (log_mel - LOG_MEL_CENTRE) / LOG_MEL_SPREAD * mask
        features = self.embed_norm(self.embed(features)) * mask
        for block in self.blocks:
            features = block(features, mask)
        features = self.norm(features)
        correction = self.magnitude_head(features).float()
        log_magnitude = (self.first_log_magnitude(log_mel) + correction).clamp(
            max=MAX_LOG_MAGNITUDE
        )
        real, imaginary = self.phase_head(features).float().chunk(2, dim=1)
        phase = torch.atan2(imaginary, real + 1e-12)
        # A copy, whose gradient is that of the levels alone (`learnt`).
        return PredictedSTFT(log_magnitude, phase, log_mel.float().clone())

    def first_log_magnitude(self, log_mel: Tensor) -> Tensor:
        """Log of the pseudo-inverse's magnitude `[batch, bin, frame]`, floored."""
        # Never in half precision: the pseudo-inverse subtracts nearly equal numbers.
        with torch.autocast(log_mel.device.type, enabled=False):
            magnitude = self.inverse_mel @ log_mel.float().exp()
        return magnitude.clamp(min=self.spectrogram.floor).log()

    def polish(self, stft: PredictedSTFT, steps: int, num_frames: Tensor | None = None) -> Tensor:
        """Make sound after accelerated Griffin-Lim steps from the predicted phase; differentiable.

        Overlapping frames then agree with each other, which the network alone does not ensure. The
        margins of the spectrogram's padding are cut off.

        Args:
            stft: What the network predicted.
            steps: 0 is the inverse STFT by overlap-add.
            num_frames: As in `forward`.

        Returns:
            `[batch, sample]`.
        """
        mask = self._mask(stft.phase, num_frames)
        # Signs come after polar(): its gradient is that of a magnitude, never negative.
        direction = torch.polar(torch.ones_like(stft.phase), stft.phase) * self.signs[:, None]
        grid = FrameGrid(mask[:, 0], self.window, self.spectrogram)
        log_mel = stft.log_mel.transpose(1, 2)
        magnitude = self.partials(stft.log_magnitude.transpose(1, 2).exp(), log_mel)
        magnitude = magnitude * mask.transpose(1, 2)
        levels = BandLevels(log_mel, self.filters, self.spectrogram.floor)
        return polish(magnitude, direction.transpose(1, 2), grid, steps, levels)

    def _mask(self, frames: Tensor, num_frames: Tensor | None) -> Tensor:
        count = frames.shape[2]
        if num_frames is None:
            return torch.ones(frames.shape[0], 1, count, device=frames.device)
        return step_mask(num_frames, count, 1)
