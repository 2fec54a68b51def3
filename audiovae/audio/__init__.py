"""Audio files in and out: the public face of the package.

Only this package opens or writes audio. Waveforms are numpy float32 `[channel, sample]`,
nominally in [-1, 1]; clipping, DC and values beyond 1 in float files pass through untouched.
"""

from __future__ import annotations

from audiovae.audio.formats import (
    claims_to_be_audio,
    is_compressed,
    states_its_length,
)
from audiovae.audio.listing import audio_files_below
from audiovae.audio.mixing import mixed_to_mono
from audiovae.audio.reader import AudioReader, is_audio_by_content, probe_audio
from audiovae.audio.resample import RangeReader, ResampledReader, StreamResampler, resample
from audiovae.audio.values import (
    AudioInfo,
    AudioPath,
    Clip,
    Waveform,
    sample_range,
)
from audiovae.audio.writer import AudioFormat, AudioWriter, format_of_name, write_audio

__all__ = [
    "AudioFormat",
    "AudioInfo",
    "AudioPath",
    "AudioReader",
    "AudioWriter",
    "Clip",
    "RangeReader",
    "ResampledReader",
    "StreamResampler",
    "Waveform",
    "audio_files_below",
    "claims_to_be_audio",
    "format_of_name",
    "is_audio_by_content",
    "is_compressed",
    "mixed_to_mono",
    "probe_audio",
    "read_audio",
    "resample",
    "sample_range",
    "states_its_length",
    "write_audio",
]


def read_audio(
    path: AudioPath,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    sample_rate: int | None = None,
) -> Clip:
    """Read a file, or a time range of it.

    Args:
        path: A file of any name; its content decides how it is read.
        start_seconds: Where to begin.
        duration_seconds: How much, clipped to the file; None reads to the end.
        sample_rate: Wanted, Hz; None keeps the file's.

    Returns:
        The audio.

    Raises:
        AudioReadError: Or a subclass that says what is wrong, in one line.
        ConfigError: If the range lies outside the file.
    """
    with AudioReader(path) as reader:
        info = reader.info
        rate = info.sample_rate if sample_rate is None else sample_rate
        with ResampledReader(reader, rate) as source:
            chosen = sample_range(source.num_samples, rate, start_seconds, duration_seconds)
            return Clip(source.read(chosen.start, chosen.stop), rate, info.bit_depth)
