"""The discriminators that judge the vocoder's sound.

Two families, as in DAC (Kumar et al., 2023, arXiv:2306.06546): multi-period discriminators fold
the waveform at a few prime periods (HiFi-GAN, Kong et al., 2020, arXiv:2010.05646), and banded
discriminators see the complex STFT at a few window lengths (EnCodec, Defossez et al., 2022,
arXiv:2210.13438). Both are slimmer than published, and see a crop of each item only: they, not
the vocoder, decide how many steps a second there are.

At the default sizes an item of 16 384 samples costs about 2.1 GMAC a pass (five periods 0.7, three
STFTs 0.45 each). A step of training makes eight passes' worth: one forward and a backward of twice
its cost for the real and for the made sound, then one forward and a backward to the waveform for
the made sound alone. For 24 items that is 400 GMAC, 0.8 TFLOP: 20 ms at a sustained 40 TFLOP/s.
That is an estimate, not a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from audiovae.config import DiscriminatorsConfig

_SLOPE = 0.1
_BAND_LAYERS = 3


@dataclass(frozen=True)
class DiscriminatorOutput:
    """What the discriminators make of a batch.

    Attributes:
        scores: One tensor a discriminator, batch first: high where it takes the sound for real.
        features: Activations of all their layers, batch first.
    """

    scores: tuple[Tensor, ...]
    features: tuple[Tensor, ...]

    def detach(self) -> DiscriminatorOutput:
        """The same without its graph."""
        return DiscriminatorOutput(
            tuple(score.detach() for score in self.scores),
            tuple(feature.detach() for feature in self.features),
        )

    def split(self) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Outputs of the first and of the second half of the batch."""
        scores = [score.chunk(2) for score in self.scores]
        features = [feature.chunk(2) for feature in self.features]
        first, second = (
            DiscriminatorOutput(tuple(s[half] for s in scores), tuple(f[half] for f in features))
            for half in (0, 1)
        )
        return first, second


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample: convolutions along the columns of a folded waveform."""

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        """Build strided layers and one that keeps the length."""
        super().__init__()
        self.period = period
        inputs = [1, *channels[:-1]]
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            _convolution(i, o, (5, 1), (stride, 1))
            for i, o, stride in zip(inputs, channels, strides, strict=True)
        )
        self.score = _convolution(channels[-1], 1, (3, 1))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Score and features of `[batch, sample]`."""
        missing = -waveform.shape[1] % self.period
        folded = functional.pad(waveform[:, None], (0, missing), mode="reflect")
        shape = (len(waveform), 1, -1, self.period)
        hidden = folded.reshape(shape)  # [batch, 1, step, period]
        features = []
        for layer in self.layers:
            hidden = functional.leaky_relu(layer(hidden), _SLOPE)
            features.append(hidden)
        return self.score(hidden), features


class STFTDiscriminator(nn.Module):
    """Sees real and imaginary part of the STFT at one window length, band by band."""

    window: Tensor

    def __init__(self, window_samples: int, channels: int, band_edges: Sequence[float]) -> None:
        """Build a stack of layers a band, and one that joins the bands."""
        super().__init__()
        # Of unit size for unit noise.
        window = torch.hann_window(window_samples) * math.sqrt(2 / window_samples)
        self.register_buffer("window", window, persistent=False)
        bins = window_samples // 2 + 1
        edges = [0, *(round(edge * bins) for edge in band_edges), bins]
        self.band_sizes = [stop - start for start, stop in pairwise(edges)]
        self.bands = nn.ModuleList(_band_layers(channels) for _ in self.band_sizes)
        self.score = _convolution(channels, 1, (3, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Score and features of `[batch, sample]`."""
        parts = torch.split(self._spectrum(waveform), self.band_sizes, dim=3)
        features, joined = [], []
        for part, layers in zip(parts, self.bands, strict=True):
            hidden = part
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                hidden = functional.leaky_relu(layer(hidden), _SLOPE)
                features.append(hidden)
            joined.append(hidden)
        return self.score(torch.cat(joined, dim=3)), features

    def _spectrum(self, waveform: Tensor) -> Tensor:
        """`[batch, part, frame, bin]`: real and imaginary part."""
        size = len(self.window)
        # Never in half precision: the transform's range is wider than its.
        with torch.autocast(waveform.device.type, enabled=False):
            frames = waveform.float().unfold(1, size, size // 4) * self.window
            spectrum = torch.view_as_real(torch.fft.rfft(frames))  # [batch, frame, bin, part]
        return spectrum.permute(0, 3, 1, 2)


class Discriminators(nn.Module):
    """All of them, on one crop of every item."""

    def __init__(self, config: DiscriminatorsConfig) -> None:
        """Build what `config` lists; weights are random."""
        super().__init__()
        self.config = config
        members: list[nn.Module] = [
            PeriodDiscriminator(period, config.period_channels) for period in config.periods
        ]
        members += [
            STFTDiscriminator(window, config.stft_channels, config.band_edges)
            for window in config.stft_windows
        ]
        self.members = nn.ModuleList(members)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """Judge `[batch, sample]`, `sample` at least the longest window."""
        scores: list[Tensor] = []
        features: list[Tensor] = []
        for member in self.members:
            score, own = member(waveform)
            scores.append(score)
            features += own
        return DiscriminatorOutput(tuple(scores), tuple(features))


def _band_layers(channels: int) -> nn.ModuleList:
    """Layers of one band; each of the first halves the bins."""
    inputs = [2] + [channels] * (_BAND_LAYERS - 1)
    layers = [_convolution(i, channels, (3, 9), (1, 2)) for i in inputs]
    return nn.ModuleList([*layers, _convolution(channels, channels, (3, 3))])


def _convolution(
    inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> nn.Module:
    """Weight-normed, and begun so that the signal keeps its size from layer to layer.

    PyTorch's default halves it with each, and with it the pace at which the discriminators learn.
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel[0] // 2, kernel[1] // 2))
    nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
    nn.init.zeros_(cast(Tensor, layer.bias))
    normed: nn.Module = weight_norm(layer)
    return normed
