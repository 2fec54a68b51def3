"""How a batch is stopped, and the one place that configures its logging."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from audiovae.commands import Interrupted
from audiovae.errors import AudioVAEError

GRACE_SECONDS = 20.0
_LOGGERS = ("pipelines", "audiovae")


class FatalProblem(AudioVAEError):
    """The whole batch cannot go on; exit status 1."""


class _QuietHandler(logging.FileHandler):
    """A log on a full disk loses lines; what the disk did to outputs and manifest counts."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: by default each lost line would be a traceback on the terminal."""


class LogFile:
    """Context in which both packages log to one file, and to nothing else.

    Tracebacks go there only; a terminal sees one line a problem.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handler: logging.Handler | None = None
        self._before: dict[str, tuple[int, bool]] = {}

    def __enter__(self) -> LogFile:
        """Open the file for appending.

        Raises:
            FatalProblem: If it cannot be opened.
        """
        try:
            handler = _QuietHandler(self._path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise FatalProblem(
                f"expected a writable output directory, got '{error.strerror}' for {self._path}; "
                "free it or choose another --output-dir"
            ) from error
        handler.setFormatter(
            logging.Formatter("%(asctime)s level=%(levelname)s logger=%(name)s %(message)s")
        )
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            self._before[name] = (logger.level, logger.propagate)
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.addHandler(handler)
        self._handler = handler
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Put the loggers back as they were.

        Raises:
            FatalProblem: In the place of an exception that nobody foresaw, which is logged.
        """
        unforeseen = isinstance(error, Exception) and not isinstance(error, AudioVAEError)
        if unforeseen:
            logging.getLogger(__name__).error("unforeseen=%s", error, exc_info=True)
        assert self._handler is not None
        for name, (level, propagate) in self._before.items():
            logger = logging.getLogger(name)
            logger.removeHandler(self._handler)
            logger.setLevel(level)
            logger.propagate = propagate
        self._handler.close()
        if isinstance(error, OSError):  # of a file that is read or written, it is not the end
            is_pipe = isinstance(error, BrokenPipeError)
            place = (
                error.filename2
                or error.filename
                or ("standard output" if is_pipe else self._path.parent)
            )
            raise FatalProblem(
                f"{error.strerror or error}: {place}; mend that and "
                "run the same command again to continue"
            ) from error
        if unforeseen:
            raise FatalProblem(
                f"unforeseen {type(error).__name__}: {error}; please report it with {self._path}, "
                "and run the same command again to continue"
            )


class StopRequest:
    """Context that turns SIGINT and SIGTERM into a request to stop.

    The first signal asks: work in flight may finish for `GRACE_SECONDS`. The second one, or
    the end of the grace, makes `expired` true: work in flight is then dropped. While no work is
    in flight (`immediate`), a signal raises `Interrupted` at once instead.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.immediate = True
        self._held = False
        self._grace_seconds = grace_seconds
        self._count = 0
        self._first_at = 0.0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._count > 0

    @property
    def expired(self) -> bool:
        """Whether work in flight should be dropped now."""
        late = time.monotonic() - self._first_at > self._grace_seconds
        return self._count > 1 or (self._count == 1 and late)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Context in which a first signal only sets `requested`; another one raises."""
        before = self.immediate, self._held
        self.immediate, self._held = False, True
        try:
            yield
        finally:
            self.immediate, self._held = before

    def __enter__(self) -> StopRequest:
        """Install the handlers (a no-op outside the main thread, which gets no signals)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._install(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _install(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        try:
            self._before[number] = signal.signal(number, handler)
        except ValueError:
            logging.getLogger(__name__).debug("signals=unavailable thread=not-main")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._first_at = time.monotonic()
        if self.immediate or (self._held and self._count > 1):
            raise Interrupted(f"stopped by {signal.Signals(number).name}")
