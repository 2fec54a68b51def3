"""Batches of pairs: the same phrase on two instruments, and the second one in another phrase.

    source      phrase p on instrument A     what is played is taken from here
    reference   phrase q on instrument B     how it sounds is taken from here
    target      phrase p on instrument B     the truth

The second half of a batch is the first one the other way round, from B to A. An equaliser and a
hiss drawn for B change target and reference alike, so every batch holds instruments that nobody
rendered, and recordings that are not silent between notes; source and target have one level, so
level belongs to what is played.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import log_mel_to_db
from audiovae.training.crops import to_device
from audiovae.training.pairs import Pairs

REFERENCE_FRAMES = 192
_SEGMENT_FRAMES = 16
_SHUFFLED_SHARE = 0.5
_SAME_DUET_SHARE = 0.5
_LEVEL_RANGE_DB = (-24.0, 9.0)
_EQUALISED_SHARE = 0.5
_TILT_DB = 12.0
_BUMPS, _BUMP_DB = 4, 8.0
_BAND_LIMITED_SHARE = 0.2
_BAND_LIMIT_NATS_PER_BAND = 0.7
_HISSING_SHARE = 0.35
_HISS_DB = (-70.0, -35.0)  # beside the clip's level
_HISS_TILT_DB = (-24.0, 3.0)
_HISS_FRAMES = 4096
_HISS_DEVIATIONS = (0.5, 0.12)  # in nats, of the lowest band and of the highest: it has more bins
_NO_HISS = -30.0
_SILENCE_MARGIN = 0.02  # above float16's rounding of the floor
_DB_PER_NAT = float(log_mel_to_db(torch.ones(1)))


@dataclass(frozen=True)
class PairBatch:
    """What one step learns from.

    Row `pair + i` is row `i` the other way round. Of the first `2 * duets` rows half of the
    neighbours share the target's instrument, so that their sum is that instrument playing both
    phrases.

    Attributes:
        source: `[batch, mel, frame]`.
        reference: `[batch, mel, reference_frame]`.
        target: `[batch, mel, frame]`.
    """

    source: Tensor
    reference: Tensor
    target: Tensor


@dataclass(frozen=True)
class _Players:
    """Clips `[pair]`, the equalisers `[pair, mel]` they are heard through, and hiss beside them."""

    clips: Tensor
    colour: Tensor
    hiss: Tensor


class PairDraw:
    """Draws batches from pairs; all randomness comes from the generator that is handed in."""

    def __init__(self, pairs: Pairs, config: SpectrogramConfig) -> None:
        """Make the tables of who plays what.

        Args:
            pairs: Where from; every instrument plays at least two phrases.
            config: Gives the floor.
        """
        self._pairs, self._floor, self._players = pairs, config.log_floor, pairs.players
        self._device = pairs.log_mel.device
        order = pairs.instrument_of.argsort(stable=True)
        counts = pairs.instrument_of.bincount()
        firsts = counts.cumsum(0) - counts
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(len(order)) - firsts[pairs.instrument_of[order]]
        self._by_instrument, self._counts, self._firsts, self._ranks = order, counts, firsts, ranks
        self._usual_level = float(0.5 * pairs.band_power.mean(dim=1).log().mean())
        self._hiss = _hiss(pairs.log_mel.shape[2]).to(self._device)

    def __call__(
        self,
        num_pairs: int,
        crop_frames: int,
        generator: torch.Generator,
        *,
        duets: int,
        same_share: float,
    ) -> PairBatch:
        """Draw a batch of `2 * num_pairs` rows.

        Args:
            num_pairs: Each gives two rows, one for each way.
            crop_frames: Frames of source and target.
            generator: A CPU generator.
            duets: Neighbours among the first rows that are to be summed.
            same_share: Of pairs whose source is the target itself.
        """
        draw = _Draw(num_pairs, generator)
        first, second = self._two_players(draw, duets, same_share)
        level = self._usual_level + draw.uniform(*_LEVEL_RANGE_DB) / _DB_PER_NAT
        start = draw.below(self._pairs.log_mel.shape[1] - crop_frames + 1)
        frames = (start[:, None] + torch.arange(crop_frames)).repeat(2, 1)
        level, clips = level.repeat(2), torch.cat([first.clips, second.clips])
        colour = torch.cat([first.colour, second.colour])
        hiss = torch.cat([first.hiss, second.hiss]) + level[:, None]
        draw_all = _Draw(2 * num_pairs, generator)
        reference, heard = self._other_clip(clips, draw_all), self._reference_frames(draw_all)
        target = self._clips(clips, frames, colour, level)
        target = self._with_hiss(target, hiss, draw.moments(crop_frames).repeat(2))
        other = self._clips(reference, heard, colour, level)
        other = self._with_hiss(other, hiss, draw_all.moments(heard.shape[1]))
        return PairBatch(source=target.roll(num_pairs, 0), reference=other, target=target)

    def _two_players(self, draw: _Draw, duets: int, same_share: float) -> tuple[_Players, _Players]:
        """For each pair two clips of one phrase, and an equaliser and hiss for each."""
        first = draw.below(len(self._pairs.phrase_of))
        row = torch.arange(len(first))
        joins = (row < 2 * duets) & (row % 2 == 1) & draw.happens(_SAME_DUET_SHARE)
        first = torch.where(joins, self._other_clip(first, draw).roll(1), first)
        second = first - first % self._players + draw.below(self._players)
        same = draw.happens(same_share)
        num_mels = self._pairs.log_mel.shape[2]
        colour, other_colour = draw.equaliser(num_mels), draw.equaliser(num_mels)
        colour = torch.where(joins[:, None], colour.roll(1, 0), colour)
        other_colour = torch.where(same[:, None], colour, other_colour)
        hiss, other_hiss = draw.hiss(num_mels), draw.hiss(num_mels)
        hiss = torch.where(joins[:, None], hiss.roll(1, 0), hiss)
        other_hiss = torch.where(same[:, None], hiss, other_hiss)
        second = torch.where(same, first, second)
        return _Players(first, colour, hiss), _Players(second, other_colour, other_hiss)

    def _other_clip(self, clips: Tensor, draw: _Draw) -> Tensor:
        """For each clip another one by the same instrument."""
        instrument = self._pairs.instrument_of[clips]
        count = self._counts[instrument]
        further = 1 + (draw.uniform(0, 1) * (count - 1).clamp(min=1)).long()
        rank = (self._ranks[clips] + further) % count
        return self._by_instrument[self._firsts[instrument] + rank]

    def _reference_frames(self, draw: _Draw) -> Tensor:
        """`[batch, frame]`: a stretch of the clip, for half of the rows in shuffled pieces."""
        length = min(REFERENCE_FRAMES, self._pairs.log_mel.shape[1])
        start = draw.below(self._pairs.log_mel.shape[1] - length + 1)
        pieces = torch.arange(length).reshape(-1, _SEGMENT_FRAMES)
        kept = torch.arange(len(pieces)).expand(len(start), -1)
        order = torch.where(draw.happens(_SHUFFLED_SHARE)[:, None], draw.order(len(pieces)), kept)
        return start[:, None] + pieces[order].flatten(1)

    def _clips(self, clips: Tensor, frames: Tensor, colour: Tensor, level: Tensor) -> Tensor:
        """`[batch, mel, frame]` under an equaliser and at a level."""
        device = self._device
        rows, places, colour, level = (
            to_device(one, device) for one in (clips, frames, colour, level)
        )
        log_mel = self._pairs.log_mel[rows[:, None], places].float().transpose(1, 2)
        power = self._pairs.band_power[rows] * (2 * colour).exp()
        gain = level - 0.5 * power.mean(dim=1).log()
        silent = log_mel <= self._floor + _SILENCE_MARGIN
        changed = log_mel + colour[:, :, None] + gain[:, None, None]
        return changed.masked_fill(silent, self._floor).clamp(min=self._floor)

    def _with_hiss(self, clips: Tensor, hiss: Tensor, moments: Tensor) -> Tensor:
        """`[batch, mel, frame]` and hiss of bands `[batch, mel]`, from `[batch]` moments on."""
        frames = moments[:, None] + torch.arange(clips.shape[2])
        places = to_device(frames, self._device)
        flicker = self._hiss[:, places].transpose(0, 1)  # [batch, mel, frame]
        added = flicker + to_device(hiss, self._device)[:, :, None]
        return 0.5 * torch.logaddexp(2 * clips, 2 * added)


def _hiss(num_mels: int) -> Tensor:
    """`[mel, frame]`: how the bands of a steady noise flicker, in nats; the same in every run."""
    low, high = _HISS_DEVIATIONS
    noise = torch.randn(num_mels, _HISS_FRAMES, generator=torch.Generator().manual_seed(0))
    return noise * torch.linspace(low, high, num_mels)[:, None]


class _Draw:
    """Draws one number a row."""

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        self._rows, self._generator = rows, generator

    def uniform(self, low: float, high: float) -> Tensor:
        return torch.rand(self._rows, generator=self._generator) * (high - low) + low

    def below(self, limit: int) -> Tensor:
        return torch.randint(limit, (self._rows,), generator=self._generator)

    def happens(self, probability: float) -> Tensor:
        return self.uniform(0, 1) < probability

    def order(self, count: int) -> Tensor:
        """`[row, count]`: a permutation a row."""
        return torch.rand(self._rows, count, generator=self._generator).argsort(dim=1)

    def equaliser(self, num_mels: int) -> Tensor:
        """`[row, mel]`, smooth gains in nats; some are flat, some cut the highest bands off."""
        band = torch.linspace(0, 1, num_mels)
        gains = (self.uniform(-_TILT_DB, _TILT_DB) / _DB_PER_NAT)[:, None] * (band - 0.5)
        for _ in range(_BUMPS):
            height = self.uniform(-_BUMP_DB, _BUMP_DB) / _DB_PER_NAT
            centre, width = self.uniform(0, 1)[:, None], self.uniform(0.03, 0.2)[:, None]
            gains = gains + height[:, None] * torch.exp(-0.5 * ((band - centre) / width).square())
        gains = gains * self.happens(_EQUALISED_SHARE)[:, None]
        edge = torch.where(self.happens(_BAND_LIMITED_SHARE), self.uniform(0.55, 0.95), 1.0)
        above = (band - edge[:, None]).clamp(min=0) * num_mels
        return gains - _BAND_LIMIT_NATS_PER_BAND * above

    def hiss(self, num_mels: int) -> Tensor:
        """`[row, mel]`, a noise's bands in nats beside a clip's level; most rows have none."""
        tilt = self.uniform(*_HISS_TILT_DB)[:, None] * torch.linspace(0, 1, num_mels)
        bands = (self.uniform(*_HISS_DB)[:, None] + tilt) / _DB_PER_NAT
        return torch.where(self.happens(_HISSING_SHARE)[:, None], bands, _NO_HISS)

    def moments(self, frames: int) -> Tensor:
        """`[row]`: where so many frames of the kept hiss begin."""
        return self.below(_HISS_FRAMES - frames + 1)
