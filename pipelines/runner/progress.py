"""Progress in seconds of audio: a live line on a terminal, `key=value` lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_LINE_EVERY_SECONDS: Final = 5.0
_BAR_CELLS: Final = 24
_EXACT_BELOW_SECONDS: Final = 9.95
_SECOND, _MINUTE, _HOUR = 1, 60, 3600


@dataclass(slots=True)
class Tally:
    """What is done so far, and what there is to do."""

    total_seconds: float
    total_files: int
    done_seconds: float = 0.0
    done_files: int = 0
    failed_files: int = 0

    @property
    def fraction(self) -> float:
        """Share of the audio that is done."""
        return min(self.done_seconds / self.total_seconds, 1.0) if self.total_seconds else 1.0


def duration(seconds: float) -> str:
    """Seconds for a reader: `2.4s`, `48s`, `3m20s`, `12h05m`.

    >>> duration(2.44), duration(47.6), duration(200), duration(43_500)
    ('2.4s', '48s', '3m20s', '12h05m')
    """
    if 0 < seconds < _EXACT_BELOW_SECONDS:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"


class Progress:
    """Context that shows a `Tally` while it grows; `tick` it a few times a second."""

    def __init__(
        self, tally: Tally, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.tally = tally
        self._stream = stream
        self._clock = clock
        self._started = self._last_line = clock()
        console = Console(file=stream)
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._text)
            if console.is_terminal
            else None
        )

    @property
    def wall_seconds(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Seconds of audio done per second."""
        return self.tally.done_seconds / max(self.wall_seconds, 1e-9)

    def __enter__(self) -> Progress:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        """Write a plain line if one is due (a terminal refreshes by itself)."""
        now = self._clock()
        if self._live is None and now - self._last_line >= PLAIN_LINE_EVERY_SECONDS:
            self._last_line = now
            self._stream.write(self.plain_line() + "\n")
            self._stream.flush()

    def plain_line(self) -> str:
        """The state as `key=value` pairs."""
        tally = self.tally
        return (
            f"progress={tally.fraction:.3f} audio_seconds={tally.done_seconds:.0f}"
            f"/{tally.total_seconds:.0f} files={tally.done_files}/{tally.total_files} "
            f"failed={tally.failed_files} rate={self.rate:.1f}x left={self._left()}"
        )

    def _left(self) -> str:
        if not self.tally.done_seconds:
            return "unknown"
        return duration((self.tally.total_seconds - self.tally.done_seconds) / self.rate)

    def _text(self) -> Text:
        tally = self.tally
        filled = round(tally.fraction * _BAR_CELLS)
        text = Text.assemble(
            ("━" * filled, "cyan"),
            ("━" * (_BAR_CELLS - filled), "bright_black"),
            f" {tally.fraction:4.0%}  {duration(tally.done_seconds)} of "
            f"{duration(tally.total_seconds)} of audio  ",
            (f"{self.rate:.1f}x realtime", "bold"),
            f"  {self._left()} left  {tally.done_files}/{tally.total_files} files",
        )
        if tally.failed_files:
            text.append(f"  {tally.failed_files} failed", "red")
        return text
