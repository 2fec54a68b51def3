"""Whether a Ray cluster answers at an address: known within seconds, where Ray tries for minutes.

Needs no Ray. A Ray server speaks HTTP/2 and says so as soon as a client has; whatever else listens
there does not.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from audiovae.commands import UsageProblem
from pipelines.runner.stopping import FatalProblem

AUTO: Final = "auto"
CLIENT_SCHEME: Final = "ray://"
_ANSWER_SECONDS: Final = 10.0
_MOST_PORT: Final = 65_535
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS: Final = 4  # type of the frame that either side sends first
_FRAME_TYPE: Final = 3  # where it stands in the head of a frame
_FRAME_HEAD_BYTES: Final = 9


def require_cluster(address: str) -> None:
    """Refuse an address at which no Ray cluster answers.

    Args:
        address: `HOST:PORT` of its head, `ray://HOST:PORT` of its client server, or `auto`, for
            which Ray itself looks on this machine.

    Raises:
        UsageProblem: If it is no address.
        FatalProblem: If nobody answers, or something else than Ray.
    """
    if address == AUTO:
        return
    host, port = _parsed(address)
    try:
        with socket.create_connection((host, port), _ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                _require_ray(connection, address)
    except OSError as error:
        raise _refusal(address, error.strerror or str(error) or "no answer") from error


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix(CLIENT_SCHEME).rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) <= _MOST_PORT:
        raise UsageProblem(
            "RAY_ADDRESS: expected HOST:PORT of a cluster's head, ray://HOST:PORT of its client "
            f"server, or auto, got '{address}'; on the cluster use HOST:6379, from elsewhere "
            "`ray job submit` or ray://HOST:10001"
        )
    return host.strip("[]"), int(port)


def _require_ray(connection: socket.socket, address: str) -> None:
    connection.settimeout(_ANSWER_SECONDS)
    connection.sendall(_HELLO)
    answer = b""
    while len(answer) < _FRAME_HEAD_BYTES and (more := connection.recv(_FRAME_HEAD_BYTES)):
        answer += more
    if answer[_FRAME_TYPE : _FRAME_TYPE + 1] != bytes((_SETTINGS,)):
        raise _refusal(address, "an answer that is not Ray's" if answer else "a closed connection")


def _refusal(address: str, found: str) -> FatalProblem:
    return FatalProblem(
        f"RAY_ADDRESS: expected a Ray cluster to answer at {address}, got: {found}; check that it "
        "runs and that the port is right (the head's own is 6379 by default, ray:// has 10001, the "
        "dashboard's 8265 is for `ray job submit`), or use --executor local"
    )
