"""How far a vocoder's sound is from the truth, on the clips held back from training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.config import SpectrogramConfig
from audiovae.models.vocoder import Vocoder
from audiovae.objectives.spectral import mel_and_short_distance
from audiovae.spectrogram import log_mel_spectrogram, padded_samples
from audiovae.synthesis import DEFAULT_POLISH_STEPS
from audiovae.training.data import Corpus, to_float

_SECONDS = 4


@dataclass(frozen=True)
class SoundFigures:
    """What was heard.

    Attributes:
        mel_distance: Mean over the clips.
        short: The same over the short windows alone.
        original: `[mel, frame]`, log-mel of the first clip.
        decoded: `[mel, frame]`, log-mel of what became of it.
    """

    mel_distance: float
    short: float
    original: Tensor
    decoded: Tensor


def heard_clips(
    clips: Corpus, spectrogram: SpectrogramConfig, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Seconds of every clip, or of a few long ones: `[1, sample]`, log-mel `[1, mel, frame]`."""
    limit = _SECONDS * spectrogram.sample_rate
    pieces = clips.pieces(limit)
    for index in range(len(pieces.names)):
        clip = to_float(pieces.clip(index)[:limit]).to(device)
        missing = padded_samples(len(clip), spectrogram) - len(clip)
        target = functional.pad(clip, (0, missing))[None]
        yield target, log_mel_spectrogram(target, spectrogram)


def listen(
    vocoder: Vocoder,
    clips: Corpus,
    device: torch.device,
    decode: Callable[[Tensor], Tensor],
) -> SoundFigures:
    """Sound seconds of every clip (`heard_clips`).

    Args:
        vocoder: Log-mel to sound.
        clips: Waveform corpus.
        device: Where the vocoder is.
        decode: From the true log-mel `[1, mel, frame]` to the one that is sounded.
    """
    spectrogram = vocoder.spectrogram
    totals, shorts, first = [], [], None
    for target, log_mel in heard_clips(clips, spectrogram, device):
        waveform = vocoder.polish(vocoder.predict(decode(log_mel)), DEFAULT_POLISH_STEPS)
        total, short = mel_and_short_distance(waveform, target, spectrogram.sample_rate)
        totals.append(total)
        shorts.append(short)
        first = first or (log_mel[0], log_mel_spectrogram(waveform, spectrogram)[0])
    assert first is not None
    return SoundFigures(fmean(totals), fmean(shorts), *first)
