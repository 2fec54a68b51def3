"""A Ray cluster of separate processes on this machine, whose nodes can be killed."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.pipelines.processes import ACTOR, kill, session

RAY = Path(sys.executable).with_name("ray")
START_SECONDS = 120.0
STORE_BYTES = 80 << 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RayNodes:
    """A head without cores, and nodes with cores of their own, each in its own process group."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = os.environ | {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            # A dead node is found sooner than on a real network.
            "RAY_health_check_initial_delay_ms": "5000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "6",
            "RAY_agent_register_timeout_ms": "100000",
            "RAY_worker_niceness": "0",  # on a busy machine 15 is never
        }
        self._temporary = tempfile.TemporaryDirectory(
            prefix="ray", ignore_cleanup_errors=True
        )  # sockets want short paths
        self._cores = cores
        self._head: subprocess.Popen[bytes] | None = None
        self.nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> RayNodes:
        port = self.address.rpartition(":")[2]
        self._head = self._start(
            *("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"),
            f"--temp-dir={self._temporary.name}",
        )
        self._wait_for_head()
        for cores in self._cores:
            self.add(cores)
        return self

    def add(self, cores: int) -> None:
        """Start one more node, and wait for it: two that start at once may want the same port."""
        deadline = time.monotonic() + START_SECONDS
        node = self._start(f"--address={self.address}", f"--num-cpus={cores}")
        while not is_up(node):
            assert time.monotonic() < deadline, "a node did not start"
            if node.poll() is not None:
                node = self._start(f"--address={self.address}", f"--num-cpus={cores}")
            time.sleep(0.2)
        self.nodes.append(node)

    def mend(self) -> None:
        """Replace nodes that have gone by themselves, as they do on a machine that is too busy."""
        for node in list(self.nodes):
            if not is_up(node):
                self.kill(self.nodes.index(node))
                self.add(self._cores[0])

    def actors(self, name: str = ACTOR) -> list[int]:
        """Pids of the actors on all nodes."""
        lines = {pid: line for node in self.nodes for pid, line in session(node.pid).items()}
        return [pid for pid, line in lines.items() if line.startswith(name)]

    def kill(self, index: int) -> None:
        """Kill the raylet of a node, as a machine that goes away does."""
        node = self.nodes.pop(index)
        kill(pid for pid, line in session(node.pid).items() if "raylet/raylet" in line)
        wait_quietly(node, 10.0)

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for node in [*self.nodes, self._head]:
            if node is not None:
                family = session(node.pid)
                node.terminate()
                wait_quietly(node, 10.0)
                kill(family)
        self._temporary.cleanup()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [RAY, "start", "--block", *arguments, f"--object-store-memory={STORE_BYTES}"],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait_for_head(self) -> None:
        host, port = self.address.split(":")
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1.0).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the head did not start"
                time.sleep(0.1)


def is_up(node: subprocess.Popen[bytes]) -> bool:
    """Whether a node's raylet runs, and its agents, without which a raylet ends itself."""
    lines = " ".join(session(node.pid).values())
    return all(name in lines for name in ("raylet/raylet", "DashboardAgent", "RuntimeEnvAgent"))


def wait_quietly(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
