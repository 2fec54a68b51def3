"""The hierarchical convolutional VAE over log-mel spectrograms.

    log_mel [b, 128, 1024]  86 Hz                                log_mel [b, 128, 1024]
        | stride 2                                                   ^ head
    features  43 Hz  ------------ posterior ------------->  groups of the finest level
        | stride 2                                                   ^ up 2
    features  21 Hz  ------------ posterior ------------->  groups
        | stride 4                                                   ^ up 4
    features   5 Hz  ------------ posterior ------------->  groups
        | stride 4                                                   ^ up 4
    features 1.3 Hz  ------------ posterior ------------->  groups of the coarsest level
                                                                     ^ learned constant

The bottom-up path sees the sound; the top-down path is all a decoder has. Each latent group's
prior is computed from the groups above it (ladder VAE, Sonderby et al., 2016, arXiv:1602.02282;
the residual top-down form of VDVAE, Child, 2021, arXiv:2011.10650, and QRes-VAE, Duan et al.,
2023, arXiv:2208.13056). What one path does with a group (draw, round, read from a file, sample)
is a function handed to the top-down path: `choose`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.config import ModelConfig
from audiovae.errors import ModelMismatchError
from audiovae.latents import Conditions, Latents
from audiovae.models.blocks import (
    ChannelNorm,
    Downsample,
    Upsample,
    bands_to_rows,
    cell_mask,
    cells_to_steps,
    rows_to_bands,
    rows_to_cells,
    step_mask,
)
from audiovae.models.bottlenecks import BottleneckKind
from audiovae.models.conditioning import build_conditionings
from audiovae.models.conditioning.base import in_a_row
from audiovae.models.conditioning.pitch import PitchTrack
from audiovae.models.latent_group import (
    ChooseLatent,
    LatentGroup,
    TakeLatent,
    conditioned_blocks,
)
from audiovae.models.output import VAEOutput
from audiovae.models.shapes import check_frames, check_log_mel
from audiovae.models.timbre import TimbreEncoder, TimbrePosterior, at_reference_level


class HVAE(nn.Module):
    """Encoder, top-down decoder and their bottlenecks."""

    mel_mean: Tensor
    mel_deviation: Tensor

    def __init__(self, config: ModelConfig) -> None:
        """Build the networks of `config.vae`; weights are random."""
        super().__init__()
        self.config = config
        levels = config.vae.levels
        width, num_mels = config.vae.width, config.spectrogram.num_mels
        self.rows = rows = config.vae.rows
        conditionings = build_conditionings(config)
        self._conditionings = tuple(conditionings)
        for kind, conditioning in conditionings.items():
            self.add_module(kind, conditioning)
        context = sum(conditioning.context_channels for conditioning in conditionings.values())
        self.timbre = TimbreEncoder(config.timbre, config) if config.timbre else None
        self.pitch = PitchTrack(config) if config.pitch else None
        sounding = context + (self.timbre.context_channels if self.timbre else 0)
        self.register_buffer("mel_mean", torch.zeros(num_mels))
        self.register_buffer("mel_deviation", torch.ones(num_mels))
        inputs = [num_mels // rows] + [width] * (len(levels) - 1)
        self.down = nn.ModuleList(
            Downsample(channels, width, level.stride)
            for channels, level in zip(inputs, levels, strict=True)
        )
        self.encoder = nn.ModuleList(
            conditioned_blocks(config, level.encoder_blocks, context) for level in levels
        )
        self.place = nn.Parameter(torch.zeros(width, rows)) if rows > 1 else None
        self.top = nn.Parameter(torch.zeros(width * rows))
        self.up = nn.ModuleList(
            Upsample(width, width, level.stride) for level in reversed(levels[1:])
        )
        self.groups = nn.ModuleList(
            LatentGroup(config, levels[len(levels) - 1 - level], context)
            for level in self.config.vae.group_levels
        )
        self.head = conditioned_blocks(config, config.vae.head_blocks, sounding)
        self.head_norm = ChannelNorm(width)
        self.output = Upsample(width, num_mels // rows, levels[0].stride)

    def bottlenecks(self) -> tuple[BottleneckKind, ...]:
        """Of each latent group, coarse to fine."""
        return tuple([cast(LatentGroup, group).bottleneck for group in self.groups])

    def forward(
        self,
        log_mel: Tensor,
        num_frames: Tensor,
        conditions: Conditions,
        generator: torch.Generator | None = None,
    ) -> VAEOutput:
        """Reconstruct with drawn latents: the training pass.

        Args:
            log_mel: `[batch, mel, frame]`; `frame` a multiple of `config.vae.total_stride`.
            num_frames: `[batch]`; frames beyond these are padding and are ignored.
            conditions: Lambda of each item for a quality-conditioned model.
            generator: Source of the bottleneck's noise.
        """
        kinds = self.bottlenecks()
        return self.reconstruct(
            log_mel,
            num_frames,
            conditions,
            lambda group, posterior, prior, mask: kinds[group].draw(
                posterior, prior, mask, generator
            ),
        )

    def encode(self, log_mel: Tensor, num_frames: Tensor, conditions: Conditions) -> VAEOutput:
        """Reconstruct with settled latents (rounded, or the posterior mean): no noise."""
        kinds = self.bottlenecks()
        return self.reconstruct(
            log_mel,
            num_frames,
            conditions,
            lambda group, posterior, prior, _mask: kinds[group].settle(posterior, prior),
        )

    def decode(self, latents: Latents, num_frames: int) -> Tensor:
        """Log-mel `[batch, mel, frame]` of given latents, with `num_frames` padded frames."""
        groups = latents.groups
        return self.top_down(
            latents.num_frames,
            num_frames,
            latents.conditions,
            lambda g, _features, _prior: groups[g],
        )

    def sample(
        self,
        num_frames: Tensor,
        padded_frames: int,
        conditions: Conditions,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-mel drawn from the prior."""
        kinds = self.bottlenecks()
        return self.top_down(
            num_frames,
            padded_frames,
            conditions,
            lambda group, _features, prior: kinds[group].generate(prior, temperature, generator),
        )

    def top_down(
        self, num_frames: Tensor, padded_frames: int, conditions: Conditions, choose: ChooseLatent
    ) -> Tensor:
        """Run the decoder; `choose` decides each latent group, coarse to fine.

        Args:
            num_frames: `[batch]`; signal frames of each item.
            padded_frames: Frames of the result; a multiple of `config.vae.total_stride`.
            conditions: As in `forward`.
            choose: Called once a group; returns `[batch, channel, step]`.

        Returns:
            `[batch, mel, frame]`, natural log of magnitude.
        """
        check_frames(padded_frames, self.config)
        context = self._context(conditions)
        first_steps = padded_frames // self.config.vae.total_stride
        features = rows_to_cells(self.top.reshape(-1, self.rows), first_steps)
        previous_level = -1
        mask = features  # replaced before use: the first group always opens a level
        levels, strides = self.config.vae.group_levels, self.config.vae.level_strides
        for index, (module, level) in enumerate(zip(self.groups, levels, strict=True)):
            group = cast(LatentGroup, module)
            if level != previous_level:
                stride = strides[level]
                mask = cell_mask(num_frames, padded_frames // stride, stride, self.rows)
                features = self.up[level - 1](features, mask) if level else features * mask
                features = self._with_pitch(features, level, conditions, mask)
                previous_level = level
            for block in group.blocks:
                features = block(features, mask, context)
            latent = choose(index, features, group.prior_of(features))
            features = features + group.injected(latent.to(features.dtype)) * mask
        context = self._with_timbre(context, conditions)
        for block in self.head:
            features = block(features, mask, context)
        frame_mask = cell_mask(num_frames, padded_frames, 1, self.rows)
        decoded: Tensor = self.output(self.head_norm(features), frame_mask).float()
        standardised = rows_to_bands(decoded, self.rows)
        return standardised * self.mel_deviation[:, None] + self.mel_mean[:, None]

    def timbre_of(self, log_mel: Tensor, num_frames: Tensor) -> TimbrePosterior:
        """The timbre codes of a batch of log-mels; arguments as in `forward`.

        Raises:
            ModelMismatchError: If this model has no timbre code.
        """
        if self.timbre is None:
            raise ModelMismatchError(
                f"expected a model with a timbre code, got '{self.config.name}', which has none; "
                'use load_model("timbre") or train one with configs/timbre.toml'
            )
        check_log_mel(log_mel, self.config)
        levelled = self.standardise(at_reference_level(log_mel, num_frames))
        return cast(TimbrePosterior, self.timbre(levelled, num_frames))

    def standardise(self, log_mel: Tensor) -> Tensor:
        """Log-mel in deviations from the training data's mean, band by band."""
        return (log_mel - self.mel_mean[:, None]) / self.mel_deviation[:, None]

    def reconstruct(
        self, log_mel: Tensor, num_frames: Tensor, conditions: Conditions, take: TakeLatent
    ) -> VAEOutput:
        """Run both paths; `take` turns each group's posterior and prior into a latent.

        Args:
            log_mel: As in `forward`.
            num_frames: As in `forward`.
            conditions: As in `forward`.
            take: Called once a group, coarse to fine; what it gives beyond a signal's end is
                set to zero.
        """
        check_log_mel(log_mel, self.config)
        context = self._context(conditions)
        evidence = self._bottom_up(log_mel, num_frames, conditions, context)
        if self.timbre is not None and conditions.timbre is None:
            conditions = replace(conditions, timbre=self.timbre_of(log_mel, num_frames).mean)
        levels, strides = self.config.vae.group_levels, self.config.vae.group_strides
        latents: list[Tensor] = []
        group_bits: list[Tensor] = []
        penalties: list[Tensor] = []

        def choose(index: int, features: Tensor, prior: Tensor) -> Tensor:
            level, stride = levels[index], strides[index]
            mask = step_mask(num_frames, prior.shape[2], stride)
            cells = cell_mask(num_frames, prior.shape[2], stride, self.rows)
            group = cast(LatentGroup, self.groups[index])
            posterior = group.posterior_of(features, evidence[level], cells, context)
            sample = take(index, posterior, prior, mask)
            latents.append(sample.latent * mask)
            group_bits.append(sample.bits * mask)
            if sample.penalty is not None:
                penalties.append(sample.penalty * mask)
            return latents[-1]

        decoded = self.top_down(num_frames, log_mel.shape[2], conditions, choose)
        value = Latents(tuple(latents), levels, strides, num_frames, conditions, model_id="")
        seen = tuple([cells_to_steps(features, self.rows) for features in evidence])
        return VAEOutput(decoded, tuple(group_bits), value, tuple(penalties), seen)

    def _bottom_up(
        self, log_mel: Tensor, num_frames: Tensor, conditions: Conditions, context: Tensor | None
    ) -> list[Tensor]:
        """Features of each level, coarse to fine."""
        frames = log_mel.shape[2]
        standardised = self.standardise(log_mel) * step_mask(num_frames, frames, 1)
        features = bands_to_rows(standardised, self.rows)
        fine_to_coarse: list[Tensor] = []
        levels = list(enumerate(self.config.vae.level_strides))[::-1]
        for down, blocks, (level, stride) in zip(self.down, self.encoder, levels, strict=True):
            mask = cell_mask(num_frames, frames // stride, stride, self.rows)
            features = self._with_pitch(down(features, mask), level, conditions, mask)
            if self.place is not None and not fine_to_coarse:
                features = features + rows_to_cells(self.place, frames // stride) * mask
            for block in cast(nn.ModuleList, blocks):
                features = block(features, mask, context)
            fine_to_coarse.append(features)
        return fine_to_coarse[::-1]

    def _context(self, conditions: Conditions) -> Tensor | None:
        """`[batch, channel]`: what both paths are told, all kinds of conditioning in a row."""
        return in_a_row([getattr(self, kind)(conditions) for kind in self._conditionings])

    def _with_timbre(self, context: Tensor | None, conditions: Conditions) -> Tensor | None:
        """What the blocks behind the last group are told: the same, and the timbre."""
        told = [] if context is None else [context]
        return in_a_row(told + ([] if self.timbre is None else [self.timbre.context(conditions)]))

    def _with_pitch(self, features: Tensor, level: int, told: Conditions, mask: Tensor) -> Tensor:
        """Features of a level that opens, told the pitch of every step."""
        return features if self.pitch is None else features + self.pitch(told, level, mask)
