"""Pairs to learn timbre from, without a soundfont: a moving band by players with spectra."""

from __future__ import annotations

import torch

from audiovae.training.pairs import Pairs, PairSets

_FRAMES, _PHRASES, _PLAYERS = 64, 4, 4
_HELD_FRAMES = 8


def band_sets() -> PairSets:
    """To learn from, and two to measure on."""
    return PairSets(_played(0, 1), _played(9, 2), _played(9, 3), hours=0.1, instruments=_PLAYERS)


def _played(first_phrase: int, seed: int) -> Pairs:
    draw = torch.Generator().manual_seed(seed)
    spectra = 2 * torch.randn(_PLAYERS, 128, generator=torch.Generator().manual_seed(5))
    clips = []
    for _ in range(_PHRASES):
        place = torch.randint(20, 100, (_FRAMES // _HELD_FRAMES,), generator=draw)
        distance = torch.arange(128) - place.repeat_interleave(_HELD_FRAMES)[:, None]
        band = 4 * torch.exp(-0.02 * distance.square())  # [frame, mel]
        clips += [(-7 + band + spectrum).half() for spectrum in spectra]
    log_mel = torch.stack(clips)
    phrases = torch.arange(first_phrase, first_phrase + _PHRASES)
    return Pairs(
        log_mel,
        phrases.repeat_interleave(_PLAYERS),
        torch.arange(_PLAYERS).repeat(_PHRASES),
        (2 * log_mel.float()).exp().mean(dim=1),
    )
