"""Bare partials: a sinusoid that a log-mel shows alone is made as narrow as it was.

From 3 kHz on, a mel band is several bins wide, and the pseudo-inverse spreads what it holds over
all of them. A steady tone so spread has frames that cannot agree, and most of it cancels. But the
filters are triangles that sum to one between the centres of bands, so a sinusoid's two or three
bands still tell its frequency: it is the mean of their centres, weighted by what each holds. Its
magnitude is then that of a stationary sinusoid under the window (McAulay and Quatieri, 1986,
doi:10.1109/TASSP.1986.1164910). No phase is needed: Griffin-Lim finds that of narrow peaks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.spectrogram import mel_edges

_BARE_FROM_DB, _BARE_AT_DB = 12.0, 22.0
"""How far a partial stands above what is beside it, to be believed a little, and wholly."""
_MIN_SPACING_BINS = 1.5  # where bands lie closer, the main lobe itself fills several
_BESIDE = 1e-3  # of the partial's magnitudes, in sum: what bins beside the main lobe are left
_TINY = 1e-9
_NEPERS_PER_DB = math.log(10) / 20


class BarePartials(nn.Module):
    """Narrows a magnitude where its log-mel shows one sinusoid alone. Nothing is learnt."""

    centres: Tensor
    heights: Tensor
    spaced: Tensor
    bins_of_pair: Tensor
    first_bin: Tensor

    def __init__(self, spectrogram: SpectrogramConfig) -> None:
        """Compute where bands lie among the bins."""
        super().__init__()
        edges = mel_edges(spectrogram)
        centres, half_widths = edges[1:-1], (edges[2:] - edges[:-2]) / 2
        heights = spectrogram.window_samples / spectrogram.sample_rate / half_widths  # area 1, Hz
        spaced = half_widths >= _MIN_SPACING_BINS
        for name, value in (("centres", centres), ("heights", heights), ("spaced", spaced)):
            self.register_buffer(name, value.float(), persistent=False)
        # Each bin belongs to the two bands whose centres it lies between.
        bins = torch.arange(spectrogram.num_bins, dtype=edges.dtype)
        pairs = (torch.searchsorted(centres, bins, right=True) - 1).clamp(0, len(centres) - 2)
        counts = (pairs[:, None] == torch.arange(len(centres) - 1)).sum(dim=0)
        self.register_buffer("bins_of_pair", counts, persistent=False)
        self.register_buffer("first_bin", counts.cumsum(0) - counts, persistent=False)

    def forward(self, magnitude: Tensor, log_mel: Tensor) -> Tensor:
        """Narrow what is bare.

        Args:
            magnitude: `[batch, frame, bin]`.
            log_mel: `[batch, frame, mel]`, natural log of magnitude.

        Returns:
            `[batch, frame, bin]`; each frame depends on its own log-mel alone.
        """
        held = log_mel.exp() / self.heights  # magnitudes of bins in sum, by band
        before, left, here, right, after = functional.pad(held, (2, 2)).unfold(-1, 5, 1).unbind(-1)
        total = left + here + right
        # A sinusoid lies between two centres, or at one of them: the third band has little.
        beside = torch.minimum(left, right).maximum(before).maximum(after)
        bare = (total / beside.clamp(min=_TINY)).log() / _NEPERS_PER_DB
        trust = ((bare - _BARE_FROM_DB) / (_BARE_AT_DB - _BARE_FROM_DB)).clamp(0, 1)
        trust = trust * self.spaced * ((here >= left) & (here > right))
        centres = functional.pad(self.centres, (1, 1))
        place = left * centres[:-2] + here * self.centres + right * centres[2:]
        place = place / total.clamp(min=_TINY)
        # Of neighbouring bands at most one is a peak, so it owns the bins up to both centres. Few
        # bands are bare: only their bins are computed.
        lower = trust[..., :-1] > 0
        trust = trust[..., :-1] + trust[..., 1:]
        place = torch.where(lower, place[..., :-1], place[..., 1:])
        total = torch.where(lower, total[..., :-1], total[..., 1:])
        item, frame, pair = trust.nonzero(as_tuple=True)
        counts = self.bins_of_pair[pair]
        owner = torch.arange(len(pair), device=pair.device).repeat_interleave(counts)
        begin = self.first_bin[pair] - (counts.cumsum(0) - counts)
        bins = torch.arange(len(owner), device=pair.device) + begin[owner]
        trust, place, total = (v[item, frame, pair][owner] for v in (trust, place, total))
        # The main lobe of a Hann window is a raised cosine within 0.03; these sum to 1.
        lobe = (1 + (math.pi / 2 * (bins - place).clamp(-2, 2)).cos()) / 4
        partial = total.clamp(min=_TINY) * lobe.clamp(min=_BESIDE)
        cells = (item[owner], frame[owner], bins)
        found = magnitude[cells]
        narrowed = found * (partial / found.clamp(min=_TINY)).pow(trust)
        return magnitude.index_put(cells, narrowed)
