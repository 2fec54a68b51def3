"""Figures of spans and of files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from audiovae.audio import AudioInfo
from audiovae.stretches import Coding, Stopwatch


@dataclass(frozen=True)
class SpanReport:
    """Sums over a span that add up to a file's figures.

    Attributes:
        frames: Log-mel frames, all channels that were coded.
        bits: The model's own estimate of their code length.
        error_db: Sum over frames of the mean absolute log-mel difference.
        timings_seconds: Wall time by stage: decode, mel, encode, vocode, write.
        channel_of: For each channel the channel that was coded for it.
        log_lambda: Condition it was coded under.
        note: What the user should know of the file, or "".
    """

    frames: int
    bits: float
    error_db: float
    timings_seconds: dict[str, float]
    channel_of: tuple[int, ...] = ()
    log_lambda: float | None = None
    note: str = ""


@dataclass(frozen=True)
class FileReport:
    """What is known of a finished file.

    Attributes:
        seconds: Length.
        sample_rate: Hz, of source and output.
        num_channels: Of source and output.
        estimated_kbps: The model's own estimate, all channels together; None for a source that
            was compressed already, and of a model with a timbre code.
        kbps: True rate of the compressed file, all its bytes; None if none was written.
        log_mel_l1_db: Mean absolute difference of decoded and original log-mel; None likewise.
        timings_seconds: Wall time by stage: decode, mel, encode, vocode, write.
        note: What the user should know of the file, or "".
    """

    seconds: float
    sample_rate: int
    num_channels: int
    estimated_kbps: float | None
    kbps: float | None
    log_mel_l1_db: float | None
    timings_seconds: dict[str, float]
    note: str = ""


def span_report(
    coding: Coding, watch: Stopwatch, log_lambda: float | None, note: str
) -> SpanReport:
    """The figures of a coding."""
    return SpanReport(
        coding.frames,
        coding.bits,
        coding.error_db,
        watch.seconds,
        coding.channel_of,
        log_lambda,
        note,
    )


def file_report(info: AudioInfo, spans: Sequence[SpanReport], kbps: float | None) -> FileReport:
    """Add up the figures of a file's spans; `kbps` is the true rate if it was compressed."""
    seconds = info.duration_seconds
    timings: dict[str, float] = {}
    for span in spans:
        for name, value in span.timings_seconds.items():
            timings[name] = timings.get(name, 0.0) + value
    frames = sum(span.frames for span in spans)
    bits = math.fsum(span.bits for span in spans)
    error = math.fsum(span.error_db for span in spans)
    return FileReport(
        seconds=seconds,
        sample_rate=info.sample_rate,
        num_channels=info.num_channels,
        estimated_kbps=bits / seconds / 1000 if frames else None,
        kbps=kbps,
        log_mel_l1_db=error / frames if frames else None,
        timings_seconds=timings,
        note=next((span.note for span in spans if span.note), ""),
    )
