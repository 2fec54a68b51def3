"""Which runner a batch gets, and why; needs neither Ray nor torch."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from audiovae.commands import UsageProblem

Executor = Literal["auto", "local", "ray"]
ADDRESS_VARIABLE: Final = "RAY_ADDRESS"
_AUTH_VARIABLES: Final = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_JOB_VARIABLE: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set for the driver of a submitted job
FEW_WORKERS: Final = 8
SMALL_JOB_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A runner, and the reason in a few words."""

    executor: Literal["local", "ray"]
    why: str


def choose_executor(asked: Executor, load_seconds: float, num_workers: int) -> Choice:
    """Choose the runner.

    Args:
        asked: `--executor`.
        load_seconds: Audio to be done.
        num_workers: Workers on this machine.
    """
    if asked != "auto":
        return Choice(asked, "asked for")
    if address := os.environ.get(ADDRESS_VARIABLE):
        return Choice("ray", f"RAY_ADDRESS is {address}")
    if num_workers < FEW_WORKERS:
        return Choice("local", f"threads are as fast below {FEW_WORKERS} workers")
    if load_seconds < SMALL_JOB_SECONDS * num_workers:
        return Choice("local", "a small job is done before Ray would have started")
    return Choice("ray", f"processes keep {num_workers} workers busier than threads")


def set_ray_environment() -> None:
    """Set what Ray reads from the environment as it is imported. What the user has set stays."""
    # Ray writes to standard output what its nodes complain of, a hundred lines for a lost one.
    # What befell our workers is in our log; an autoscaler is still heard.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "100000")  # on a busy machine
    os.environ.setdefault("RAY_worker_niceness", "0")  # this command's, not 15 more
    if ADDRESS_VARIABLE in os.environ:  # somebody answers there: a refusal need not be repeated
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "5")
    is_private = ADDRESS_VARIABLE not in os.environ and "ray" not in sys.modules
    if is_private and not any(name in os.environ for name in _AUTH_VARIABLES):
        # A token for this run alone, instead of one that Ray would leave in the home folder.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def refuse_relative_paths(named: Mapping[str, str | Path | None]) -> None:
    """Refuse paths that would mean a place in the uploaded copy of a submitted job.

    Args:
        named: Every path of the command line by the name of its option.

    Raises:
        UsageProblem: If this is the driver of a Ray job and one of them is relative.
    """
    if _JOB_VARIABLE not in os.environ:
        return
    for name, path in named.items():
        if path is not None and "://" not in str(path) and not os.path.isabs(path):
            raise UsageProblem(
                f"{name}: expected an absolute path under `ray job submit`, got '{path}', which "
                "would be looked for in the job's own copy; give the path that every node sees"
            )
