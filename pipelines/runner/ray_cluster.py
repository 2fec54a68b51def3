"""The Ray runner: one actor a core (or several a GPU), replaced by us when they die.

Ray restarts and retries nothing itself, so every unit is in our hands: the worklist knows what
each actor is at, decides who is to blame when one dies, and hands its work to another. Actors
are fed only after they have answered, nodes that join later get theirs, and nothing but file
names and figures passes between machines.
"""

from __future__ import annotations

import logging
import queue
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, RayActorError

import audiovae
from audiovae.commands import Interrupted, one_line
from pipelines.runner.patience import Patience
from pipelines.runner.ray_actor import Introduction, Place, Reply, UnitActor
from pipelines.runner.ray_layout import Layout, living_nodes
from pipelines.runner.ray_metrics import RayMetrics
from pipelines.runner.stopping import FatalProblem, StopRequest
from pipelines.runner.summary import RunFacts
from pipelines.runner.units import Outcome, Unit
from pipelines.runner.worklist import Attempt, Worklist

_POLL_SECONDS: Final = 0.25
_LOOK_EVERY_SECONDS: Final = 2.0
_TELL_EVERY_SECONDS: Final = 60.0
_REFUSALS_TO_GIVE_UP: Final = 3  # of workers that cannot begin, while none can
_DEATHS_TO_GIVE_UP: Final = 10
_LONGEST_PAUSE_SECONDS: Final = 30.0

_logger = logging.getLogger(__name__)


class Stuck(Exception):
    """A worker does not get through its unit."""


@dataclass(eq=False, slots=True)
class _Member:
    """An actor: at first it opens its place, then it is idle or at one attempt."""

    actor: Any
    node: str = ""  # once it has answered
    attempt: Attempt | None = None
    begun_at: float = 0.0
    fresh: bool = True


class RayRunner:
    """Runs units in actors. See `units.Runner` for the contract.

    Args:
        place: Where the actors work; pickled once for each.
        layout: How many actors, and what each holds.
        facts: Learns the model, the number of workers and how many died.
        stop: Asked while the first actor starts.
    """

    def __init__(self, place: Place, layout: Layout, facts: RunFacts, stop: StopRequest) -> None:
        self._place = place
        self._layout = layout
        self._facts = facts
        self._stop = stop
        self._class = ray.remote(max_restarts=0, max_task_retries=0, **layout.options)(UnitActor)
        self._worklist = Worklist()
        self._members: set[_Member] = set()
        self._idle: list[_Member] = []
        self._events: queue.SimpleQueue[tuple[_Member, Future[Any]]] = queue.SimpleQueue()
        self._own_node = ray.get_runtime_context().get_node_id()
        self._metrics = RayMetrics()
        self._patience = Patience()
        self._refusals = self._early_deaths = 0
        self._look_at = self._start_at = 0.0
        self._had_worker_at = time.monotonic()

    @property
    def capacity(self) -> int:
        """One unit for each actor that has answered."""
        return max(1, sum(1 for member in self._members if member.node))

    def submit(self, unit: Unit) -> None:
        """Hand a unit to an idle actor, or let it wait for one."""
        self._worklist.submit(unit)
        self._feed()

    def next_outcome(self, timeout_seconds: float) -> Outcome | None:
        """Wait for the next outcome.

        Raises:
            FatalProblem: If no actor can begin, or Ray on this machine is gone.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._tend()
            if (outcome := self._give_up_one()) is not None:
                return outcome
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            outcome = self._receive(*event)
            self._feed()
            if outcome is not None:
                return outcome

    def __enter__(self) -> RayRunner:
        """Start the actors, and wait for the first to answer.

        Raises:
            FatalProblem: If none can begin.
            Interrupted: If a signal came meanwhile.
        """
        with self._stop.held():
            while not any(member.node for member in self._members):
                self.next_outcome(_POLL_SECONDS)
                if self._stop.requested:
                    raise Interrupted("stopped while the workers were starting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """End every actor, busy or not."""
        with self._stop.held():
            self._metrics.update(self._facts, 0)
            for member in list(self._members):
                self._dismiss(member)

    # --- actors come and go ------------------------------------------------------------

    def _tend(self) -> None:
        """Start the actors that are missing, and see to suspects that wait for a fresh one."""
        now = time.monotonic()
        if now < self._look_at or now < self._start_at:
            return
        self._look_at = now + _LOOK_EVERY_SECONDS
        if self._worklist.waits_for_fresh_worker and self._idle:
            self._dismiss(self._idle[0])
        nodes = living_nodes()
        if self._own_node not in nodes:
            raise FatalProblem(
                "expected Ray on this machine to stay, but its node is gone; run the same command "
                "again to continue"
            )
        wanted = self._layout.wanted(list(nodes.values()))
        for _ in range(wanted - len(self._members)):
            member = _Member(self._class.remote())
            self._members.add(member)
            self._watch(member, member.actor.open.remote(self._place, audiovae.__version__))
        self._facts.num_workers = max(self._facts.num_workers, wanted)
        busy = sum(1 for member in self._members if member.attempt)
        self._metrics.update(self._facts, busy)
        if any(member.node for member in self._members):
            self._had_worker_at = now
        elif now - self._had_worker_at > _TELL_EVERY_SECONDS:
            self._had_worker_at = now
            sys.stderr.write(
                "waiting for a worker to start: the cluster may have no room for one, or its "
                "machines other work (`ray status` tells)\n"
            )

    def _watch(self, member: _Member, reference: Any) -> None:
        events = self._events
        reference.future().add_done_callback(lambda future: events.put((member, future)))

    def _dismiss(self, member: _Member) -> None:
        """Let an actor go, dead or alive; what it still says is not listened to."""
        self._members.discard(member)
        if member in self._idle:
            self._idle.remove(member)
        ray.kill(member.actor)
        self._look_at = 0.0

    def _feed(self) -> None:
        """Give every idle actor something to do, as long as there is something for it."""
        if not self._worklist:
            return
        still_idle = []
        for member in self._idle:
            member.attempt = self._worklist.take(fresh=member.fresh)
            if member.attempt is None:
                still_idle.append(member)
            else:
                member.begun_at = time.monotonic()
                self._watch(member, member.actor.perform.remote(member.attempt.unit))
        self._idle = still_idle

    # --- what actors say ---------------------------------------------------------------

    def _receive(self, member: _Member, future: Future[Any]) -> Outcome | None:
        if member not in self._members:
            return None
        error = future.exception()
        if not member.node:
            self._welcome(member, future.result()) if error is None else self._refuse(member, error)
            return None
        attempt, member.attempt = member.attempt, None
        assert attempt is not None
        if error is None:
            self._patience.learn(attempt.unit, time.monotonic() - member.begun_at)
            member.fresh = False
            self._idle.append(member)
            return self._worklist.done(attempt, _hear(future.result()))
        return self._bury(member, attempt, error)

    def _welcome(self, member: _Member, introduction: Introduction) -> None:
        member.node = introduction.node
        self._idle.append(member)
        self._refusals = self._early_deaths = 0
        self._facts.model_name = introduction.model_name
        self._facts.model_id = introduction.model_id

    def _refuse(self, member: _Member, error: BaseException) -> None:
        """An actor could not begin: try again after a while, unless none ever can."""
        self._dismiss(member)
        cause = getattr(error, "cause", None) or error
        died = isinstance(error, RayActorError)
        self._early_deaths += died
        self._refusals += not died
        failures = self._early_deaths + self._refusals
        pause = min(_LONGEST_PAUSE_SECONDS, 0.25 * 2**failures)
        self._start_at = time.monotonic() + pause
        _logger.warning("worker=refused failures=%d reason=%s", failures, one_line(cause))
        given_up = self._refusals >= _REFUSALS_TO_GIVE_UP or (
            self._early_deaths >= _DEATHS_TO_GIVE_UP
        )
        if given_up and not any(other.node for other in self._members):
            raise FatalProblem(f"no worker could begin: {one_line(cause)}")

    def _give_up_one(self) -> Outcome | None:
        """End a worker that has been at one unit for too long: as if it had died of that."""
        for member in self._members:
            attempt, seconds = member.attempt, time.monotonic() - member.begun_at
            if attempt and seconds > self._patience.seconds_for(attempt.unit):
                return self._bury(member, attempt, Stuck(f"no end after {seconds:.0f} s"))
        return None

    def _bury(self, member: _Member, attempt: Attempt, error: BaseException) -> Outcome | None:
        """An actor is lost with its work: give that to another, and see who is to blame."""
        self._dismiss(member)
        self._facts.dead_workers += 1
        is_stuck = isinstance(error, Stuck)
        is_dead = isinstance(error, ActorDiedError) and member.node in living_nodes()
        suspect = is_stuck or is_dead
        paths = ", ".join(repr(task.path) for task in attempt.unit.tasks[:3])
        _logger.warning(
            "worker=%s unit=%d deaths=%d paths=%s reason=%s",
            "stuck" if is_stuck else "died" if is_dead else "lost",
            attempt.unit.number,
            attempt.deaths,
            paths,
            one_line(error),
        )
        if not suspect:
            return self._worklist.lost(attempt)
        return self._worklist.died(attempt, alone=is_stuck or member.fresh)


def _hear(reply: Reply) -> Outcome:
    """The outcome in a reply; its log goes where ours goes."""
    for record in reply.records:
        logging.getLogger(record.name).handle(record)
    return reply.outcome
