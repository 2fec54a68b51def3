"""Rate control: which lambda makes a file of the size that was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock

from torch import Tensor

from audiovae.audio import AudioReader, ResampledReader
from audiovae.checkpoint import Model, QualityPoint
from audiovae.chunks import chunk_range
from audiovae.codec import AvaeHeader, chunk_bytes, head_bytes
from audiovae.coherence import Angles
from audiovae.compressed import file_header
from audiovae.errors import ConfigError
from audiovae.reconstruct import Reconstructor
from audiovae.spectrogram import log_mel_window
from audiovae.stretches import Signal, Stretch, alike_throughout, held_samples

TOLERANCE = 0.02
"""A search ends this close to the target, relative."""
_MAX_TRIALS = 8
_MAX_SAMPLED_CHUNKS = 64
_MEASURED_TOGETHER = 16
_MAX_CORRECTIONS = 4
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
    chunks spread evenly; a limit in bytes is then confirmed on the whole file.

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
    highest = math.log(quality.max_lambda)
    header = file_header(model, source.info, (), lowest, 0)
    seconds = header.duration_seconds
    asked = [kbps * 125 * seconds if kbps is not None else math.inf, max_bytes or math.inf]
    target = min(asked)

    def search(goal: float) -> RatePoint:
        return search_log_lambda(
            sampled.num_bytes,
            goal,
            model.quality_scale,
            (lowest, highest),
            goal / 125 / seconds,
            at_most=max_bytes is not None,
        )

    sampled = _SampledChunks(model, reconstructor, source, header, _MAX_SAMPLED_CHUNKS)
    found = search(target)
    if max_bytes is not None and not sampled.are_all:
        whole = _SampledChunks(model, reconstructor, source, header, header.num_chunks)
        found = _within_limit(whole.num_bytes, search, target, lowest)
    reached = found.num_bytes / 125 / seconds
    note = ""
    if max_bytes is not None and found.num_bytes > max_bytes:
        note = f"asked for {max_bytes} bytes, the smallest is {found.num_bytes:.0f}"
    elif kbps is not None and abs(reached / kbps - 1) > _TOLD_DEVIATION:
        reach = f"{max_bytes} bytes" if target == max_bytes else "reach"
        note = f"asked for {kbps:g} kbps, the nearest within {reach} is {reached:.2f}"
    return found.log_lambda, note


def _within_limit(
    measure: Callable[[float], float],
    search: Callable[[float], RatePoint],
    limit: float,
    lowest: float,
) -> RatePoint:
    """Find a lambda whose true bytes are within a limit, by searches that only estimate them.

    Args:
        measure: True bytes that a log lambda makes; slow.
        search: Finds the lambda of at most so many estimated bytes.
        limit: In bytes.
        lowest: The smallest log lambda.

    Returns:
        The lambda and its true bytes; the smallest lambda if nothing is within the limit.
    """
    best: RatePoint | None = None
    tried: set[float] = set()
    factor = 1.0  # true bytes by estimated ones, where they were last compared
    for _ in range(_MAX_CORRECTIONS):
        guess = search(limit / factor)
        if guess.log_lambda in tried:
            break
        tried.add(guess.log_lambda)
        point = RatePoint(guess.log_lambda, measure(guess.log_lambda))
        if point.num_bytes <= limit and (best is None or point.num_bytes > best.num_bytes):
            best = point
        if (1 - 2 * TOLERANCE) * limit <= point.num_bytes <= limit:
            break
        factor = (1 + TOLERANCE / 4) * point.num_bytes / guess.num_bytes
    return best or RatePoint(lowest, measure(lowest))


@dataclass
class _Search:
    """What was found for a file, by whoever asked first."""

    lock: Lock = field(default_factory=Lock)
    found: tuple[float, str] | None = None


class LambdaSearch:
    """The lambda of each file of a batch, searched once, whatever spans and threads ask for it."""

    def __init__(
        self, model: Model, reconstructor: Reconstructor, kbps: float | None, max_bytes: int | None
    ) -> None:
        self._model, self._reconstructor = model, reconstructor
        self._kbps, self._max_bytes = kbps, max_bytes
        self._searches: dict[tuple[Path, int, int], _Search] = {}
        self._lock = Lock()

    def find(self, source: Path) -> tuple[float, str]:
        """What `choose_log_lambda` gives for a file.

        Raises:
            AudioReadError: If the file cannot be read.
            ConfigError: If the model has no quality conditioning.
        """
        facts = source.stat()
        key = (source, facts.st_size, facts.st_mtime_ns)
        with self._lock:
            if key not in self._searches and len(self._searches) >= _MAX_SEARCHES_KEPT:
                self._searches = {}
            search = self._searches.setdefault(key, _Search())
        with search.lock:  # others who ask for this file wait; for other files they need not
            if search.found is None:
                search.found = self._search(source)
            return search.found

    def _search(self, source: Path) -> tuple[float, str]:
        rate = self._model.config.spectrogram.sample_rate
        with AudioReader(source) as raw, ResampledReader(raw, rate) as reader:
            return choose_log_lambda(
                self._model, self._reconstructor, reader, self._kbps, self._max_bytes
            )


@dataclass(frozen=True)
class _SampledChunk:
    """One chunk of a file.

    Attributes:
        sources: For each channel the channel that is coded for it there.
        log_mels: Of each of these, `[mel, frame]`.
        angles: Of each of these; None in phase.
    """

    sources: tuple[int, ...]
    log_mels: dict[int, Tensor]
    angles: Mapping[int, Angles | None]


class _SampledChunks:
    """Chunks of a file, spread evenly over it, and the bytes that the file has by them."""

    def __init__(
        self,
        model: Model,
        reconstructor: Reconstructor,
        source: ResampledReader,
        header: AvaeHeader,
        count: int,
    ) -> None:
        total = header.num_chunks
        self._indices = sorted({i * total // count for i in range(count)})
        self._model, self._reconstructor = model, reconstructor
        self._source, self._header = source, header
        # More than a few are read anew by each trial: ten hours of log-mels fill gigabytes.
        few = len(self._indices) <= _MAX_SAMPLED_CHUNKS
        self._kept = list(map(self._read, self._indices)) if few else None

    @property
    def are_all(self) -> bool:
        """Whether no chunk is left out."""
        return len(self._indices) == self._header.num_chunks

    def num_bytes(self, log_lambda: float) -> float:
        """Bytes of the whole file, if the other chunks are as these."""
        sources: list[tuple[int, ...]] = []
        sizes: list[dict[int, int]] = []
        chunks = iter(map(self._read, self._indices) if self._kept is None else self._kept)
        while batch := list(islice(chunks, _MEASURED_TOGETHER)):
            log_mels = [log_mel for chunk in batch for log_mel in chunk.log_mels.values()]
            angles = [chunk.angles[one] for chunk in batch for one in chunk.log_mels]
            payloads = iter(self._reconstructor.payload_bytes(log_mels, angles, log_lambda))
            for chunk in batch:
                sources.append(chunk.sources)
                sizes.append({one: chunk_bytes(next(payloads)) for one in chunk.log_mels})
        kept = set(alike_throughout(sources))
        # Channels that are alike in one chunk only share its code, which is stored for each.
        total = sum(
            own[of[channel]] for of, own in zip(sources, sizes, strict=True) for channel in kept
        )
        # Which channels are copies takes a byte each.
        copies = self._header.num_channels if len(kept) < self._header.num_channels else 0
        share = len(self._indices) / self._header.num_chunks
        return head_bytes(self._header) + copies + total / share

    def _read(self, index: int) -> _SampledChunk:
        source, config = self._source, self._model.config.spectrogram
        stretch = Stretch(source.num_samples, index, index + 1)
        frames = chunk_range(index, stretch.frames(config))
        start, stop = stretch.samples_needed(config)
        signal = Signal(stretch, source.read(start, stop), config, start)
        sources = signal.sources_in(index)
        here = sorted(set(sources))
        read = held_samples(signal.waveform[here], start)
        log_mel = log_mel_window(read, stretch.num_samples, frames.start, frames.stop, config)
        log_mels = dict(zip(here, log_mel, strict=True))
        return _SampledChunk(sources, log_mels, signal.angles_in(index, sources))
