"""Sound as overlapping windowed frames that lie where the log-mel's do, and back."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig

_MIN_WEIGHT = 1e-3  # of the windows over a sample: only the first and last few have less


class FrameGrid:
    """The frames of a batch of signals, and the joined signal they are cut from.

    The joined signal `[batch, sample]` has the margins of the spectrogram's padding on both sides,
    `(window - hop) / 2` zeros each; `waveform_of` cuts them off.
    """

    def __init__(self, mask: Tensor, window: Tensor, config: SpectrogramConfig) -> None:
        """Compute what overlapping windows weigh.

        Args:
            mask: `[batch, frame]` of 0 and 1: frames that are signal.
            window: `[sample]`, of both the analysis and the synthesis.
            config: Frame settings; the hop divides the window.
        """
        self._window, self._config = window, config
        self._margin = (config.window_samples - config.hop_samples) // 2
        weight = self._overlap_add(window.expand(*mask.shape, -1) * mask[..., None])
        audible = mask.repeat_interleave(config.hop_samples, dim=1)  # [batch, sample]
        audible = functional.pad(audible, (self._margin, self._margin))
        self._gain = audible / weight.clamp(min=_MIN_WEIGHT)

    def join(self, frames: Tensor) -> Tensor:
        """Overlap-add `[batch, frame, sample]` to a joined signal; the rest of `split`."""
        return self._overlap_add(frames) * self._gain

    def split(self, joined: Tensor) -> Tensor:
        """Windowed frames `[batch, frame, sample]` of a joined signal."""
        config = self._config
        return joined.unfold(1, config.window_samples, config.hop_samples) * self._window

    def waveform_of(self, joined: Tensor) -> Tensor:
        """`[batch, sample]` without the margins, hop samples a frame."""
        return joined[:, self._margin : joined.shape[1] - self._margin]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Several times as fast as `fold`."""
        hop = self._config.hop_samples
        batch, count, _ = frames.shape
        parts = frames.reshape(batch, count, -1, hop)  # [batch, frame, part, sample]
        window = self._window.reshape(-1, hop)
        joined = frames.new_zeros(batch, count + len(window) - 1, hop)
        for index, of_part in enumerate(window):
            joined[:, index : index + count].addcmul_(parts[:, :, index], of_part)
        return joined.flatten(1)
