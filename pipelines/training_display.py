"""What training shows: a live line with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Final, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from audiovae.training.loop import Validation, Watcher
from audiovae.training.state import Progress
from pipelines.runner.progress import PLAIN_LINE_EVERY_SECONDS, duration

_SHOWN_METRICS: Final = 4


class _LiveLine:
    """One line that is redrawn on a terminal, or written now and then elsewhere."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float]) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock
        self._last_line = clock()
        console = Console(file=self._stream)
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()

    def write(self, line: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(Text(line))
        else:
            self._stream.write(line + "\n")
            self._stream.flush()

    def update(self, line: str, *, due: bool = False) -> None:
        """The line as it is now; elsewhere than on a terminal only if one is due."""
        now = self._clock()
        if self._live is not None:
            self._live.update(Text(line))
        elif due or now - self._last_line >= PLAIN_LINE_EVERY_SECONDS:
            self._last_line = now
            self.write(line)


class CountingDisplay(_LiveLine):
    """Counts what is done of a known number of things."""

    def __init__(
        self,
        what: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, clock)
        self._what = what
        self._started = clock()

    def show(self, done: int, total: int) -> None:
        """`done` of `total` are done."""
        seconds = self._clock() - self._started
        left = duration(seconds * (total - done) / max(done, 1))
        self.update(f"{self._what}={done}/{total} left={left}", due=done == total)


class TrainingDisplay(_LiveLine, Watcher):
    """Shows a training run, and stops it when asked to."""

    def __init__(
        self,
        wants_stop: Callable[[], bool],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, clock)
        self._wants_stop = wants_stop

    def stepped(self, progress: Progress) -> None:
        """Redraw the line."""
        left = progress.seconds_left
        figures = list(progress.training_metrics.items())[:_SHOWN_METRICS]
        parts = [
            f"step={progress.step}",
            f"done={progress.fraction:.1%}",
            f"left={'unknown' if math.isinf(left) else duration(left)}",
            f"steps_per_second={progress.steps_per_second:.2f}",
            *(f"{name}={value:.4g}" for name, value in figures),
        ]
        if progress.skipped:
            parts.append(f"skipped={progress.skipped}")
        self.update(" ".join(parts))

    def validated(self, step: int, result: Validation) -> None:
        """Write the figures, and each warning on a line of its own; the CSV has each level's."""
        shown = {n: v for n, v in result.metrics.items() if not ("kbps" in n and "Hz" in n)}
        figures = " ".join(f"{name}={value:.4g}" for name, value in shown.items())
        self.write(f"validation step={step} {figures}")
        for warning in result.warnings:
            self.write(f"warning: {warning}")

    def wants_stop(self) -> bool:
        """Whether the user asked to stop."""
        return self._wants_stop()
