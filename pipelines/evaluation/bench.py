"""Every system on one clip: the model at each quality, what limits it, and Opus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch

from audiovae.analysis.metrics import Distances, measure
from audiovae.audio import Clip, Waveform, read_audio
from audiovae.checkpoint import Model
from audiovae.codec import AvaeReader
from audiovae.commands import Interrupted
from audiovae.config import SpectrogramConfig
from audiovae.files import compress
from audiovae.reconstruct import Reconstructor
from audiovae.sources import CompressedSound
from audiovae.spectrogram import log_mel_spectrogram, log_mel_to_db
from audiovae.stretches import Coding, Signal, Stopwatch, Stretch, channel_of
from audiovae.synthesis import DEFAULT_POLISH_STEPS
from pipelines.evaluation.clips import ClipFile
from pipelines.evaluation.opus import OPUS_KBPS, OpusEncoder

MODEL: Final = "audiovae"
MODEL_GRIFFIN_LIM: Final = "audiovae, Griffin-Lim"
COPY_SYNTHESIS: Final = "copy synthesis"
GRIFFIN_LIM: Final = "Griffin-Lim"
OPUS: Final = "opus"


@dataclass(frozen=True, slots=True)
class Row:
    """One system on one clip.

    Attributes:
        clip: The file.
        system: Which of the constants above.
        setting: Quality of a model, kbps asked of Opus; None for a system without bits.
        seconds: Length of the clip.
        num_bytes: Of the whole compressed file; None for a system without bits.
        decoded_log_mel_db: Mean |difference| of the log-mel that the VAE decoded, before it
            became sound; None for other systems.
        distances: Of the sound.
    """

    clip: ClipFile
    system: str
    setting: int | None
    seconds: float
    num_bytes: int | None
    decoded_log_mel_db: float | None
    distances: Distances

    @property
    def kbps(self) -> float | None:
        """All bytes of the file over its seconds, all channels."""
        return None if self.num_bytes is None else self.num_bytes * 8 / 1000 / self.seconds


@dataclass(frozen=True, slots=True)
class _Original:
    """A clip at the model's rate, and its log-mel as a decoder without loss would have it."""

    file: ClipFile
    clip: Clip
    coding: Coding


class Bench:
    """Runs every system on one clip after another. Safe to share between threads."""

    def __init__(
        self,
        model: Model,
        qualities: tuple[int, ...],
        opus: OpusEncoder | None,
        max_seconds: float | None,
        with_visqol: bool,
        is_stopped: Callable[[], bool],
        polish_steps: int = DEFAULT_POLISH_STEPS,
    ) -> None:
        self._model, self._qualities, self._opus = model, qualities, opus
        self._max_seconds, self._with_visqol = max_seconds, with_visqol
        self._is_stopped = is_stopped
        vocode = Reconstructor(model, polish_steps=polish_steps)
        self._vocoder = vocode if model.vocoder is not None else None
        self._griffin_lim = Reconstructor(replace(model, vocoder=None))

    def run(self, file: ClipFile) -> list[Row]:
        """Every row of one clip.

        Raises:
            AudioVAEError: If the file cannot be read or coded.
            Interrupted: If the user asked to stop.
        """
        torch.set_num_threads(1)  # of this thread: the clips share the cores
        original = self._read(file)
        rows = []
        for row in self._rows(original):
            rows.append(row)
            if self._is_stopped():
                raise Interrupted("stopped; nothing was written")
        return rows

    def _read(self, file: ClipFile) -> _Original:
        config = self._model.config.spectrogram
        clip = read_audio(
            file.path, duration_seconds=self._max_seconds, sample_rate=config.sample_rate
        )
        return _Original(file, clip, _true_coding(clip, config))

    def _rows(self, original: _Original) -> Iterator[Row]:
        for quality in self._qualities:
            yield from self._model_rows(original, quality)
        yield from self._sounds(original, original.coding, (COPY_SYNTHESIS, GRIFFIN_LIM))
        for kbps in OPUS_KBPS if self._opus else ():
            assert self._opus is not None
            size, sound = self._opus.transcode(original.clip, kbps)
            yield self._row(original, OPUS, sound, kbps, size)

    def _model_rows(self, original: _Original, quality: int) -> Iterator[Row]:
        data = compress(original.clip, self._model, quality=quality)
        with AvaeReader(data) as reader:
            sound = CompressedSound(reader, self._model, self._vocoder or self._griffin_lim)
            coding = sound.coding(0, sound.stretch.last_chunk, Stopwatch())
        names = (MODEL, MODEL_GRIFFIN_LIM)
        yield from self._sounds(original, coding, names, quality, len(data))

    def _sounds(
        self,
        original: _Original,
        coding: Coding,
        names: tuple[str, str],
        setting: int | None = None,
        num_bytes: int | None = None,
    ) -> Iterator[Row]:
        """A log-mel through the vocoder, if there is one, and through Griffin-Lim."""
        error_db = None if coding is original.coding else _log_mel_error_db(coding, original.coding)
        for name, reconstructor in zip(names, (self._vocoder, self._griffin_lim), strict=True):
            if reconstructor is not None:
                sound = reconstructor.sound([coding], Stopwatch())[0]
                yield self._row(original, name, sound, setting, num_bytes, error_db)

    def _row(
        self,
        original: _Original,
        system: str,
        sound: Waveform,
        setting: int | None,
        num_bytes: int | None,
        error_db: float | None = None,
    ) -> Row:
        clip = original.clip
        distances = measure(
            torch.from_numpy(sound),
            torch.from_numpy(clip.waveform),
            clip.sample_rate,
            is_speech=original.file.is_speech,
            with_visqol=self._with_visqol,
        )
        return Row(
            original.file, system, setting, clip.duration_seconds, num_bytes, error_db, distances
        )


def _true_coding(clip: Clip, config: SpectrogramConfig) -> Coding:
    stretch = Stretch.whole(clip.num_samples, config)
    sources = channel_of(Signal(stretch, clip.waveform, config))
    coded = sorted(set(sources))
    log_mel = log_mel_spectrogram(torch.from_numpy(clip.waveform[coded]), config)
    return Coding(stretch, sources, tuple(log_mel))


def _log_mel_error_db(coding: Coding, true: Coding) -> float:
    pairs = zip(coding.log_mels, true.log_mels, strict=True)
    errors = [float(log_mel_to_db((mine - other).abs()).mean()) for mine, other in pairs]
    return sum(errors) / len(errors)
