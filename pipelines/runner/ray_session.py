"""Ray from start to end: a private one on this machine, or the cluster that RAY_ADDRESS names.

`executor.set_ray_environment` comes before the import of this module.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

import ray

from audiovae.commands import Interrupted, one_line
from pipelines.runner.executor import ADDRESS_VARIABLE
from pipelines.runner.ray_address import require_cluster
from pipelines.runner.stopping import FatalProblem, StopRequest
from pipelines.runner.undertaker import Undertaker

_OBJECT_STORE_BYTES: Final = 80 << 20  # nothing but file names and figures travels
_MAX_REASON: Final = 300
_TRIES: Final = 3

_logger = logging.getLogger(__name__)


class RaySession:
    """Context in which Ray runs.

    Args:
        num_cpus: Cores of a private Ray; means nothing to a cluster.
        stop: Signals wait while Ray starts or ends, which it does not survive half-way. (For some
            tenths of a second its C++ core takes SIGTERM for a crash: status 143, nothing is lost.)
    """

    def __init__(self, num_cpus: int, stop: StopRequest) -> None:
        self._num_cpus = num_cpus
        self._stop = stop
        self._undertaker = Undertaker()
        self.address = os.environ.get(ADDRESS_VARIABLE, "")

    def __enter__(self) -> RaySession:
        """Start or join.

        Raises:
            UsageProblem: If RAY_ADDRESS is no address of a cluster.
            FatalProblem: If no cluster answers there, or Ray cannot start.
            Interrupted: If a signal came meanwhile.
        """
        if self.address:
            require_cluster(self.address)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        with self._stop.held():
            self._initialize()
        if self._stop.requested:
            self._leave()
            raise Interrupted("stopped while Ray was starting")
        return self

    def _initialize(self) -> None:
        try:
            with _signal_handlers_kept():
                self._join() if self.address else self._start()
        except SystemExit as error:  # Ray's own answer to SIGTERM while it starts
            raise Interrupted("stopped while Ray was starting") from error
        except Exception as error:
            self._leave()
            where, check = (
                (
                    f"join the cluster at {self.address} (RAY_ADDRESS)",
                    "check that this is the port of its head, that RAY_AUTH_TOKEN is its token and "
                    "that Ray and Python have its versions",
                )
                if self.address
                else ("start Ray on this machine", "try again")
            )
            raise FatalProblem(
                f"expected to {where}, got {type(error).__name__}: "
                f"{one_line(error)[:_MAX_REASON]}; {check}, or use --executor local"
            ) from error

    def _join(self) -> None:
        ray.init(self.address, log_to_driver=False, configure_logging=False)

    def _start(self) -> None:
        self._undertaker.__enter__()
        for tries_left in reversed(range(_TRIES)):
            try:
                return self._start_once()
            except Exception:  # on a busy machine Ray gives up after 30 s
                _logger.exception("ray=start-failed tries_left=%d", tries_left)
                ray.shutdown()
                if not tries_left or self._stop.requested:
                    raise

    def _start_once(self) -> None:
        ray.init(
            "local",
            num_cpus=self._num_cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            configure_logging=False,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Leave, and end every process that was started."""
        self._leave()

    def _leave(self) -> None:
        with self._stop.held(), _signal_handlers_kept():
            ray.shutdown()
            self._undertaker.__exit__(None, None, None)


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put back what was there: Ray sets its own handlers as it starts, and none as it ends."""
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
