"""Rate control: which lambda makes a file of the size that was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from audiovae.audio import AudioReader, ResampledReader
from audiovae.checkpoint import Model, QualityPoint
from audiovae.chunks import chunk_range
from audiovae.codec import chunk_bytes, head_bytes
from audiovae.compressed import file_header
from audiovae.errors import ConfigError
from audiovae.reconstruct import Reconstructor
from audiovae.spectrogram import log_mel_window
from audiovae.stretches import Signal, Stretch, alike_throughout, held_samples

TOLERANCE = 0.02
"""A search ends this close to the target, relative."""
_MAX_TRIALS = 8
_MAX_SAMPLED_CHUNKS = 64
_TOLD_DEVIATION = 0.05
_MAX_SEARCHES_KEPT = 64
_SMALLEST_STEP = 1e-3  # in log lambda: closer trials make the same file


@dataclass(frozen=True)
class RatePoint:
    """A lambda and the bytes it made."""

    log_lambda: float
    num_bytes: float


def search_log_lambda(
    measure: Callable[[float], float],
    target_bytes: float,
    scale: Sequence[QualityPoint],
    bounds: tuple[float, float],
    start_kbps: float,
    *,
    at_most: bool = False,
) -> RatePoint:
    """Find the lambda whose bytes are nearest to a target.

    Bytes rise with lambda, nearly as a power of it: the search goes by the chord through the two
    nearest trials in log-log coordinates, and halves the bracket where that is no progress.

    Args:
        measure: Bytes that a log lambda makes.
        target_bytes: What is wanted.
        scale: The model's quality scale: where to begin.
        bounds: Smallest and largest log lambda that the model was trained for.
        start_kbps: The target as a rate, to look up in the scale.
        at_most: The result must not be above the target, if anything is below it.

    Returns:
        The nearest trial; one of the bounds if the target is out of reach.
    """
    low, high = bounds
    trials: list[RatePoint] = []
    guess = min(max(_from_scale(scale, start_kbps), low), high)
    for _ in range(_MAX_TRIALS):
        point = RatePoint(guess, measure(guess))
        trials.append(point)
        excess = point.num_bytes / target_bytes - 1
        if abs(excess) <= TOLERANCE and not (at_most and excess > 0):
            break
        guess = _next_guess(trials, target_bytes * (1 - at_most * TOLERANCE / 2), low, high)
        if any(abs(guess - trial.log_lambda) < _SMALLEST_STEP for trial in trials):
            break
    allowed = [t for t in trials if not at_most or t.num_bytes <= target_bytes]
    if not allowed:  # one more look at the smallest file there is
        return RatePoint(low, measure(low))
    return min(allowed, key=lambda t: abs(math.log(t.num_bytes / target_bytes)))


def _next_guess(trials: list[RatePoint], target: float, low: float, high: float) -> float:
    below = max((t for t in trials if t.num_bytes < target), default=None, key=_lambda_of)
    above = min((t for t in trials if t.num_bytes >= target), default=None, key=_lambda_of)
    if below is None or above is None:
        last = trials[-1]
        # Rate goes roughly with the square root of lambda: step twice as far in log lambda.
        step = 2.0 * math.log(target / last.num_bytes)
        return min(max(last.log_lambda + step * (1 + 0.2 * len(trials)), low), high)
    span = math.log(above.num_bytes / below.num_bytes)
    share = math.log(target / below.num_bytes) / span if span > 0 else 0.5
    share = min(max(share, 0.1), 0.9)
    return below.log_lambda + share * (above.log_lambda - below.log_lambda)


def _from_scale(scale: Sequence[QualityPoint], kbps: float) -> float:
    """Log lambda of the scale's nearest rate."""
    return min(scale, key=lambda p: abs(math.log(max(p.kbps, 1e-3) / kbps))).log_lambda


def _lambda_of(point: RatePoint) -> float:
    return point.log_lambda


def choose_log_lambda(
    model: Model,
    reconstructor: Reconstructor,
    source: ResampledReader,
    kbps: float | None,
    max_bytes: int | None,
) -> tuple[float, str]:
    """Search the lambda for one audio file: a function of the file alone, not of any part of it.

    Files of up to `_MAX_SAMPLED_CHUNKS` chunks are measured whole, longer ones on that many
    chunks spread evenly; a limit in bytes is always measured on the whole file.

    Args:
        model: With a quality scale.
        reconstructor: Of that model.
        source: The audio, at the model's rate.
        kbps: Asked rate of all bytes, or None.
        max_bytes: Asked limit of all bytes, or None.

    Returns:
        The log lambda, and a line if what was asked for is out of reach.

    Raises:
        ConfigError: If the model has no quality conditioning.
    """
    quality = model.config.quality
    if quality is None or not model.quality_scale:
        raise ConfigError(
            f"expected a model with quality conditioning for --kbps and --max-bytes, got "
            f"{model.name} without; choose another model"
        )
    lowest = math.log(quality.min_lambda)
    header = file_header(model, source.info, (), lowest, 0)
    seconds = header.duration_seconds
    asked = [kbps * 125 * seconds if kbps is not None else math.inf, max_bytes or math.inf]
    target = min(asked)
    every = max_bytes is not None or header.num_chunks <= _MAX_SAMPLED_CHUNKS
    count = header.num_chunks if every else _MAX_SAMPLED_CHUNKS
    picked = sorted({i * header.num_chunks // count for i in range(count)})
    chunks = [_sampled_chunk(source, model, index) for index in picked]
    kept = set(alike_throughout([chunk.sources for chunk in chunks]))
    log_mels = [log_mel for chunk in chunks for log_mel in chunk.log_mels.values()]
    # Channels that are alike in one chunk only share its code, which is stored for each of them.
    stored = [
        sum(chunk.sources[channel] == one for channel in kept)
        for chunk in chunks
        for one in chunk.log_mels
    ]
    # Which channels are copies takes a byte each.
    copies = header.num_channels if len(kept) < header.num_channels else 0
    fixed = head_bytes(header) + copies

    def measure(log_lambda: float) -> float:
        sizes = reconstructor.payload_bytes(log_mels, log_lambda)
        total = sum(chunk_bytes(size) * times for size, times in zip(sizes, stored, strict=True))
        return fixed + total * header.num_chunks / len(picked)

    found = search_log_lambda(
        measure,
        target,
        model.quality_scale,
        (lowest, math.log(quality.max_lambda)),
        target / 125 / seconds,
        at_most=max_bytes is not None,
    )
    reached = found.num_bytes / 125 / seconds
    note = ""
    if max_bytes is not None and found.num_bytes > max_bytes:
        note = f"asked for {max_bytes} bytes, the smallest is {found.num_bytes:.0f}"
    elif kbps is not None and abs(reached / kbps - 1) > _TOLD_DEVIATION:
        reach = f"{max_bytes} bytes" if target == max_bytes else "reach"
        note = f"asked for {kbps:g} kbps, the nearest within {reach} is {reached:.2f}"
    return found.log_lambda, note


class LambdaSearch:
    """The lambda of each file of a batch, searched once a file however many spans it has."""

    def __init__(
        self, model: Model, reconstructor: Reconstructor, kbps: float | None, max_bytes: int | None
    ) -> None:
        self._model, self._reconstructor = model, reconstructor
        self._kbps, self._max_bytes = kbps, max_bytes
        self._found: dict[tuple[Path, int, int], tuple[float, str]] = {}

    def find(self, source: Path) -> tuple[float, str]:
        """What `choose_log_lambda` gives for a file.

        Raises:
            AudioReadError: If the file cannot be read.
            ConfigError: If the model has no quality conditioning.
        """
        facts = source.stat()
        key = (source, facts.st_size, facts.st_mtime_ns)
        found = self._found.get(key)
        if found is None:
            rate = self._model.config.spectrogram.sample_rate
            with AudioReader(source) as raw, ResampledReader(raw, rate) as reader:
                found = choose_log_lambda(
                    self._model, self._reconstructor, reader, self._kbps, self._max_bytes
                )
            if len(self._found) >= _MAX_SEARCHES_KEPT:
                self._found = {}
            self._found[key] = found
        return found


@dataclass(frozen=True)
class _SampledChunk:
    """One chunk of a file.

    Attributes:
        sources: For each channel the channel that is coded for it there.
        log_mels: Of each of these, `[mel, frame]`.
    """

    sources: tuple[int, ...]
    log_mels: dict[int, Tensor]


def _sampled_chunk(source: ResampledReader, model: Model, index: int) -> _SampledChunk:
    config = model.config.spectrogram
    stretch = Stretch(source.num_samples, index, index + 1)
    frames = chunk_range(index, stretch.frames(config))
    start, stop = stretch.samples_needed(config)
    signal = Signal(stretch, source.read(start, stop), config, start)
    sources = signal.sources_in(index)
    here = sorted(set(sources))
    read = held_samples(signal.waveform[here], start)
    log_mel = log_mel_window(read, stretch.num_samples, frames.start, frames.stop, config)
    return _SampledChunk(sources, dict(zip(here, log_mel, strict=True)))
