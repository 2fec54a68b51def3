"""How many workers a cluster gets, and what each holds; asked again as nodes come and go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray

from audiovae.commands import UsageProblem

_MOST_WORKERS_A_GPU: Final = 8  # each holds the model there, and 0.5 GB besides
_GPU_DECIMALS: Final = 10_000  # Ray counts fractions of a GPU in ten thousandths

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """What one worker holds, and how many are wanted.

    Attributes:
        device: `cpu` or `cuda`.
        workers_a_gpu: Workers that share one; they read and write files in turn with its work.
        asked: `--workers`, in place of as many as fit. More than fit make an autoscaler grow.
    """

    device: str
    workers_a_gpu: int = 1
    asked: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options of the actor."""
        if self.device == "cpu":
            return {"num_cpus": 1}
        share = math.floor(_GPU_DECIMALS / self.workers_a_gpu) / _GPU_DECIMALS
        return {"num_cpus": 1, "num_gpus": share}

    def wanted(self, nodes: Sequence[Resources]) -> int:
        """Workers that are wanted on these nodes; at least one, for which a node may yet come."""
        return self.asked or max(1, sum(self._fitting(node) for node in nodes))

    def _fitting(self, node: Resources) -> int:
        cores = int(node.get("CPU", 0))
        if self.device == "cpu":
            return cores
        return min(cores, int(node.get("GPU", 0)) * self.workers_a_gpu)


def plan_layout(nodes: Sequence[Resources], device: str, num_workers: int | None) -> Layout:
    """Choose the device, and how many workers share a GPU.

    Args:
        nodes: What each node has in all.
        device: `auto`, `cpu` or `cuda`.
        num_workers: `--workers`, or None.

    Raises:
        UsageProblem: If a GPU is asked for and no node has one.
    """
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if device == "cuda" and not with_gpu:
        raise UsageProblem(
            "--device cuda: expected a node with a GPU, the cluster has none; use --device cpu"
        )
    if device == "cpu" or not with_gpu:
        return Layout("cpu", asked=num_workers)
    cores = sum(node.get("CPU", 0) for node in with_gpu)
    gpus = sum(node["GPU"] for node in with_gpu)
    return Layout("cuda", min(max(1, int(cores / gpus)), _MOST_WORKERS_A_GPU), num_workers)


def living_nodes() -> dict[str, dict[str, float]]:
    """Resources of every node that is alive, by its id."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: _resources(node) for node in nodes if node["Alive"]}


def _resources(node: dict[str, Any]) -> dict[str, float]:
    return dict(node.get("Resources", {}))
