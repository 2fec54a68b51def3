"""The vocoder for inference: the same function of the same weights, several times as fast.

Frames come before channels throughout, so that every pointwise layer is one matrix product and
nothing is transposed; normalisations' scales and residual scales are folded into the products
beside them; the phase stays a direction in the complex plane, without atan2 and polar. The
products run in bfloat16 where the processor has instructions for it (no loss is measurable, see
docs/quality.md); the signal between the blocks, the pseudo-inverse and the STFT stay in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.models.blocks import ConvNeXtBlock
from audiovae.models.griffin_lim import BandLevels
from audiovae.models.vocoder import (
    LOG_MEL_CENTRE,
    LOG_MEL_SPREAD,
    MAX_LOG_MAGNITUDE,
    Vocoder,
)

_GELU_LINEAR = 2 * math.sqrt(2 / math.pi)  # gelu(x) = x sigmoid(a x + b x^3), the tanh form
_GELU_CUBIC = _GELU_LINEAR * 0.044715
_BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16", "sve_bf16")


@dataclass(frozen=True)
class FirstSTFT:
    """The predicted STFT, phase referred to the start of each window.

    Attributes:
        magnitude: `[batch, frame, bin]`.
        direction: `[batch, frame, bin]`, complex of modulus 1, or 0 where nothing is known.
        levels: Of the log-mel's bands.
    """

    magnitude: Tensor
    direction: Tensor
    levels: BandLevels


def fast_dtype(device: torch.device) -> torch.dtype:
    """What products are fast in: bfloat16 if the device has instructions for it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    # Older torch does not tell: float32 is right everywhere.
    features: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if any(map(features.get, _BFLOAT16_FEATURES)) else torch.float32


class FusedVocoder:
    """A vocoder's weights, rearranged for inference. Later changes of the vocoder do not count."""

    def __init__(self, vocoder: Vocoder, dtype: torch.dtype) -> None:
        """Fold the weights; `dtype` is that of the products."""
        self._dtype = dtype
        self._floor = vocoder.spectrogram.floor
        self._inverse_mel = vocoder.inverse_mel  # [bin, mel]
        self._filters = vocoder.filters
        self._partials = vocoder.partials
        self._reach = vocoder.config.kernel_size // 2
        self._embed = _Linear(vocoder.embed.weight.flatten(1), vocoder.embed.bias, dtype)
        self._embed_norm = vocoder.embed_norm
        self._blocks = [_FusedBlock(cast(ConvNeXtBlock, b), dtype) for b in vocoder.blocks]
        self._width = (vocoder.config.width,)
        self._magnitude_head = _after_norm(vocoder.norm, vocoder.magnitude_head, dtype)
        # Real and imaginary parts side by side, as complex numbers lie in memory; the signs move
        # the phase reference from a window's centre to its start, where the FFT has it.
        head = vocoder.phase_head
        order = torch.arange(len(head.weight), device=head.weight.device).reshape(2, -1).T.flatten()
        signs = vocoder.signs.repeat_interleave(2)
        weight = head.weight[order, :, 0] * signs[:, None]
        bias = cast(Tensor, head.bias)[order] * signs
        self._phase_head = _Linear(*_fold_norm(vocoder.norm, weight, bias), dtype)

    def predict(self, log_mel: Tensor, mask: Tensor) -> FirstSTFT:
        """Predict the STFT whose frames lie where the log-mel's do.

        Args:
            log_mel: `[batch, mel, frame]`, natural log of magnitude.
            mask: `[batch, frame]` of 0 and 1: frames that are signal.
        """
        spectrum = log_mel.float().transpose(1, 2)  # [batch, frame, mel]
        mask = mask[..., None]
        features = (spectrum - LOG_MEL_CENTRE) / LOG_MEL_SPREAD * mask
        padded = functional.pad(features, (0, 0, self._reach, self._reach))
        windows = padded.unfold(1, 2 * self._reach + 1, 1)  # [batch, frame, mel, tap]
        features = self._embed_norm_of(self._embed(windows.flatten(2))) * mask
        for block in self._blocks:
            features = block(features, mask)
        normed = functional.layer_norm(features, self._width).to(self._dtype)
        magnitude = functional.linear(spectrum.exp(), self._inverse_mel).clamp_(min=self._floor)
        magnitude *= self._magnitude_head(normed).exp_()
        magnitude.clamp_(max=math.exp(MAX_LOG_MAGNITUDE))
        magnitude = self._partials(magnitude, spectrum)
        parts = self._phase_head(normed).reshape(*magnitude.shape, 2)
        levels = BandLevels(spectrum, self._filters, self._floor)
        return FirstSTFT(magnitude * mask, torch.view_as_complex(parts).sgn(), levels)

    def _embed_norm_of(self, features: Tensor) -> Tensor:
        norm = self._embed_norm
        return functional.layer_norm(features, self._width, norm.weight, norm.bias, norm.eps)


class _Linear:
    """A matrix product in one type, of and to float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        assert bias is not None
        self._weight, self._bias, self._dtype = weight.to(dtype), bias.to(dtype), dtype

    def __call__(self, features: Tensor) -> Tensor:
        return functional.linear(features.to(self._dtype), self._weight, self._bias).float()


class _FusedBlock:
    """A ConvNeXt block on `[batch, frame, channel]`."""

    def __init__(self, block: ConvNeXtBlock, dtype: torch.dtype) -> None:
        self._taps = block.depthwise.weight[:, 0].T.contiguous()  # [tap, channel]
        self._bias = cast(Tensor, block.depthwise.bias)
        expand = block.expand
        self._expand = _Linear(*_fold_norm(block.norm, expand.weight, expand.bias), dtype)
        scale, contract = block.residual_scale, block.contract
        self._contract = _Linear(scale[:, None] * contract.weight, scale * contract.bias, dtype)

    def __call__(self, features: Tensor, mask: Tensor) -> Tensor:
        """The block's result, in the memory of `features`."""
        count, reach = features.shape[1], len(self._taps) // 2
        padded = functional.pad(features, (0, 0, reach, reach))
        hidden = self._bias.repeat(features.shape[0], count, 1)
        for index, tap in enumerate(self._taps):
            hidden.addcmul_(padded[:, index : index + count], tap)
        hidden = functional.layer_norm(hidden, hidden.shape[2:])
        hidden = self._contract(_gelu(self._expand(hidden)))
        return features.add_(hidden).mul_(mask)


def _gelu(values: Tensor) -> Tensor:
    """GELU in its tanh form; PyTorch's own takes twice the time."""
    gate = values.square().mul_(_GELU_CUBIC).add_(_GELU_LINEAR).mul_(values).sigmoid_()
    return gate.mul_(values)


def _fold_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that takes its input without the norm's scale and shift."""
    return weight * norm.weight, bias + weight @ norm.bias


def _after_norm(norm: nn.LayerNorm, head: nn.Conv1d, dtype: torch.dtype) -> _Linear:
    return _Linear(*_fold_norm(norm, head.weight[:, :, 0], cast(Tensor, head.bias)), dtype)
