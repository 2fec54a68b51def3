"""Where no cluster answers, it is said within seconds and in one line."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from audiovae.commands import UsageProblem
from pipelines.runner import ray_address
from pipelines.runner.ray_address import require_cluster
from pipelines.runner.stopping import FatalProblem

SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that listens; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def speak_http_2(connection: socket.socket) -> None:
    assert connection.recv(64).startswith(b"PRI * HTTP/2.0")
    connection.sendall(SETTINGS[:2])  # in pieces, as networks do
    time.sleep(0.05)
    connection.sendall(SETTINGS[2:])


def speak_http_1(connection: socket.socket) -> None:
    connection.recv(64)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def say_nothing(connection: socket.socket) -> None:
    connection.recv(64)
    connection.recv(1)  # until the other side hangs up


def hang_up(connection: socket.socket) -> None:
    connection.recv(64)


def test_what_speaks_as_ray_does_is_let_pass() -> None:
    for scheme in ("", "ray://"):
        with server(speak_http_2) as address:
            require_cluster(scheme + address)
    require_cluster("auto")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (speak_http_1, "an answer that is not Ray's"),
        (say_nothing, "timed out"),
        (hang_up, "a closed connection"),
    ],
)
def test_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], None], found: str
) -> None:
    if answer is say_nothing:
        monkeypatch.setattr(ray_address, "_ANSWER_SECONDS", 0.3)
    with server(answer) as address, pytest.raises(FatalProblem, match=f"got: {found}; check"):
        require_cluster(address)


def test_nobody_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(FatalProblem, match="got: Connection refused; check that it runs"):
        require_cluster(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address",
    ["head", "head:", ":6379", "head:port", "head:99999", "http://head:8265", "ray://", "local"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageProblem, match=r"expected HOST:PORT .* got"):
        require_cluster(address)
