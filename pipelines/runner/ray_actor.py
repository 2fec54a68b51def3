"""What runs in a Ray actor: a `Worker`, and the log that it would have written to a file.

The arguments of an actor are small and the same for all of them. Opening is a call of its own,
so that its error arrives as it was raised, and an actor is fed only once it has answered.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

import ray

import audiovae
from audiovae.errors import AudioVAEError
from pipelines.runner.units import Outcome, Performer, Unit

if TYPE_CHECKING:
    from pathlib import Path

_LOGGERS: Final = ("pipelines", "audiovae")
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Place(Protocol):
    """Where an actor works; `worker.Workplace` is one."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Directories that a node must see: of the inputs, of everything unfinished."""

    def open(self) -> Performer:
        """Get ready to work: load the model, if there is one."""


class ForeignNode(AudioVAEError):
    """A node of the cluster that cannot do the work: it lacks the files or the version."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What an actor says once it is ready."""

    node: str
    pid: int
    model_name: str
    model_id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An outcome, and what was logged on the way."""

    outcome: Outcome
    records: tuple[logging.LogRecord, ...]


class UnitActor:
    """One worker in a process of its own, with one thread."""

    def __init__(self) -> None:
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
        self._records: SimpleQueue[logging.LogRecord] = SimpleQueue()
        handler = QueueHandler(self._records)
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.addHandler(handler)

    def open(self, place: Place, version: str) -> Introduction:
        """Get ready to work.

        Raises:
            ForeignNode: If this node cannot see the folders, or runs another version.
            CheckpointError: If the model cannot be loaded.
        """
        host = os.uname().nodename
        if audiovae.__version__ != version:
            raise ForeignNode(
                f"node {host}: expected audiovae {version} as on the driver, found "
                f"{audiovae.__version__}; install the same version (or image) everywhere"
            )
        for folder in place.folders:
            if not folder.is_dir():
                raise ForeignNode(
                    f"node {host}: expected to see '{folder}' as the driver does, found nothing "
                    "there; use a file system that every node mounts at the same place"
                )
        self._worker = place.open()
        node = ray.get_runtime_context().get_node_id()
        return Introduction(node, os.getpid(), self._worker.model_name, self._worker.model_id)

    def perform(self, unit: Unit) -> Reply:
        """Do one unit of work."""
        outcome = self._worker.perform(unit)
        records = tuple(self._records.get() for _ in range(self._records.qsize()))
        return Reply(outcome, records)
