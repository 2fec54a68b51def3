"""One clip or one file at a time: what scripts and the `audiovae` command call."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiovae.audio import (
    AudioInfo,
    AudioWriter,
    Clip,
    ResampledReader,
    Waveform,
    resample,
    sample_range,
)
from audiovae.checkpoint import Model
from audiovae.codec import AvaeReader, AvaeWriter
from audiovae.compressed import file_header, quality_lambda
from audiovae.errors import AudioVAEError
from audiovae.rate import choose_log_lambda
from audiovae.reconstruct import Reconstructor
from audiovae.reports import FileReport
from audiovae.sources import CompressedSound, merged_ranges, plan_spans, probe_source
from audiovae.stretches import Signal, Stopwatch, Stretch, channel_of
from audiovae.synthesis import DEFAULT_POLISH_STEPS
from audiovae.transform import (
    COMPRESS,
    DEFAULT_QUALITY,
    Outputs,
    Transformer,
    TransformSettings,
)

_BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True)
class DecodeReport:
    """What became of a decoded file.

    Attributes:
        seconds: Length of what was written.
        lost_seconds: Time ranges that were damaged and are silence now, in order.
    """

    seconds: float
    lost_seconds: list[tuple[float, float]]


def compress(
    clip: Clip,
    model: Model,
    *,
    quality: int = DEFAULT_QUALITY,
    kbps: float | None = None,
    max_bytes: int | None = None,
) -> bytes:
    """Turn a clip into the bytes of a compressed file.

    Args:
        clip: Any sample rate and number of channels.
        model: From `load_model`.
        quality: 1 (smallest) to 8 (best).
        kbps: Rate of all bytes, all channels, in place of a quality; the nearest within reach.
        max_bytes: Limit of all bytes, in place of a quality.

    Returns:
        A whole `.avae` file.

    Raises:
        ConfigError: If the model cannot do what is asked.
    """
    settings = TransformSettings((COMPRESS,), quality, kbps, max_bytes)
    Transformer(model, settings)  # refuses what the model cannot do
    config = model.config.spectrogram
    reconstructor = Reconstructor(model)
    source = ResampledReader(_ClipReader(clip), config.sample_rate)
    stretch = Stretch.whole(source.num_samples, config)
    signal = Signal(stretch, source.read(0, source.num_samples), config)
    log_lambda = quality_lambda(model, quality)
    by_size = kbps is not None or max_bytes is not None
    asked = 0 if by_size else quality
    if by_size:
        log_lambda, _ = choose_log_lambda(model, reconstructor, source, kbps, max_bytes)
    header = file_header(model, source.info, channel_of(signal), log_lambda, asked)
    signal = replace(signal, log_lambda=log_lambda)
    data = io.BytesIO()
    with AvaeWriter(data, header) as writer:
        for chunk in reconstructor.code([signal], Stopwatch())[0].chunks:
            writer.append(chunk)
    return data.getvalue()


def decompress(
    data: bytes,
    model: Model,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    polish_steps: int = DEFAULT_POLISH_STEPS,
) -> Clip:
    """Decode the bytes of a compressed file, or a time range of them.

    Args:
        data: A whole `.avae` file.
        model: The one that wrote it.
        start_seconds: Where to begin.
        duration_seconds: How much; None decodes to the end.
        polish_steps: Griffin-Lim steps from the vocoder's phase: quality for time.

    Returns:
        A clip of the source's sample rate and channels.

    Raises:
        BitstreamError: If the data is damaged.
        ModelMismatchError: If another model wrote it.
        ConfigError: If the range lies outside the file.
    """
    reconstructor = Reconstructor(model, polish_steps=polish_steps)
    with AvaeReader(data) as reader:
        header = reader.header
        sound = CompressedSound(reader, model, reconstructor)
        chosen = sample_range(
            header.num_samples, header.sample_rate, start_seconds, duration_seconds
        )
        source = ResampledReader(sound, header.sample_rate)
        return Clip(source.read(chosen.start, chosen.stop), header.sample_rate, header.bit_depth)


def resynthesize(
    clip: Clip,
    model: Model,
    *,
    quality: int = DEFAULT_QUALITY,
    polish_steps: int = DEFAULT_POLISH_STEPS,
) -> Clip:
    """Send a clip through the model's latents and back.

    Args:
        clip: Any sample rate and number of channels.
        model: From `load_model`.
        quality: 1 (smallest) to 8 (best).
        polish_steps: Griffin-Lim steps from the vocoder's phase: quality for time.

    Returns:
        A clip of the same sample rate, length and channels.

    Raises:
        ConfigError: If the model has no such quality.
    """
    config = model.config.spectrogram
    reconstructor = Reconstructor(model, polish_steps=polish_steps)
    waveform = resample(clip.waveform, clip.sample_rate, config.sample_rate)
    stretch = Stretch.whole(waveform.shape[1], config)
    signal = Signal(stretch, waveform, config, 0, quality_lambda(model, quality))
    watch = Stopwatch()
    sound = reconstructor.sound(reconstructor.code([signal], watch), watch)[0]
    sound = resample(sound, config.sample_rate, clip.sample_rate)
    return Clip(sound[:, : clip.num_samples], clip.sample_rate, clip.bit_depth)


def process_file(
    source: Path,
    outputs: Outputs,
    model: Model,
    settings: TransformSettings,
) -> FileReport:
    """Make products of one file of any length, in bounded memory.

    Args:
        source: Audio, or a compressed file.
        outputs: Destination of each of `settings.products`.
        model: From `load_model`.
        settings: What is done.

    Raises:
        AudioVAEError: If the source cannot be read or a destination not written.
    """
    transformer = Transformer(model, settings)
    spans = plan_spans(probe_source(source))
    if len(spans) == 1:
        report = transformer.process_files([(source, outputs)])[0]
        if isinstance(report, AudioVAEError):
            raise report
        return report
    folder = next(iter(outputs.values())).parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".audiovae_") as scratch:
        parts = [Path(scratch) / f"{index:05d}" for index in range(len(spans))]
        reports = [
            transformer.process_span(source, part, first, last)
            for part, (first, last) in zip(parts, spans, strict=True)
        ]
        return transformer.assemble(source, parts, reports, outputs)


def decode_file(
    source: Path,
    destination: Path,
    model: Model,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    salvage: bool = False,
    polish_steps: int = DEFAULT_POLISH_STEPS,
) -> DecodeReport:
    """Decode a compressed file, or a time range of it, in the memory of one span.

    Args:
        source: `.avae`.
        destination: .wav, .flac or .ogg.
        model: The one that wrote the file.
        start_seconds: Where to begin.
        duration_seconds: How much; None decodes to the end.
        salvage: Replace damaged chunks by silence instead of giving up.
        polish_steps: Griffin-Lim steps from the vocoder's phase: quality for time.

    Raises:
        BitstreamError: If the file is damaged, beyond what salvage can bridge.
        ModelMismatchError: If another model wrote it.
        ConfigError: If the range lies outside the file.
    """
    with AvaeReader(source, salvage=salvage) as reader:
        header = reader.header
        reconstructor = Reconstructor(model, polish_steps=polish_steps)
        sound = CompressedSound(reader, model, reconstructor, salvage)
        chosen = sample_range(
            header.num_samples, header.sample_rate, start_seconds, duration_seconds
        )
        with (
            ResampledReader(sound, header.sample_rate) as resampled,
            AudioWriter(
                destination,
                sample_rate=header.sample_rate,
                num_channels=header.num_channels,
                bit_depth=header.bit_depth,
            ) as writer,
        ):
            for at in range(chosen.start, chosen.stop, _BLOCK_SAMPLES):
                writer.write(resampled.read(at, min(at + _BLOCK_SAMPLES, chosen.stop)))
    return DecodeReport(len(chosen) / header.sample_rate, merged_ranges(sound.lost_seconds))


class _ClipReader:
    """A clip in memory, read by range."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self.info = AudioInfo(
            sample_rate=clip.sample_rate,
            num_channels=clip.num_channels,
            num_samples=clip.num_samples,
            container="memory",
            encoding="FLOAT",
            bit_depth=clip.bit_depth,
            reader="soundfile",
        )

    def read(self, start: int, stop: int) -> Waveform:
        return np.asarray(self._clip.waveform[:, start:stop], np.float32)
