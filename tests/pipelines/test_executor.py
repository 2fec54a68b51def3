from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from audiovae.commands import UsageProblem
from pipelines.runner.executor import (
    FEW_WORKERS,
    SMALL_JOB_SECONDS,
    choose_executor,
    refuse_relative_paths,
)
from pipelines.runner.ray_layout import Layout, plan_layout
from tests.pipelines.conftest import Command
from tests.pipelines.fakes import write_tone

LARGE_SECONDS = 1e9
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("load_seconds", "num_workers", "expected"),
    [
        (LARGE_SECONDS, 1, "local"),
        (LARGE_SECONDS, FEW_WORKERS - 1, "local"),
        (LARGE_SECONDS, FEW_WORKERS, "ray"),
        (SMALL_JOB_SECONDS, FEW_WORKERS, "local"),
    ],
)
def test_auto_goes_by_size(load_seconds: float, num_workers: int, expected: str) -> None:
    choice = choose_executor("auto", load_seconds, num_workers)
    assert choice.executor == expected
    assert choice.why


def test_a_cluster_is_used_and_an_order_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert choose_executor("auto", 1.0, 1).executor == "ray"
    assert "head:6379" in choose_executor("auto", 1.0, 1).why
    assert choose_executor("local", LARGE_SECONDS, 99).executor == "local"
    monkeypatch.delenv("RAY_ADDRESS")
    assert choose_executor("ray", 1.0, 1).executor == "ray"


def test_a_job_needs_absolute_paths(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_relative_paths({"INPUT": "relative"})  # no job
    monkeypatch.setenv(JOB, "{}")
    refuse_relative_paths({"INPUT": "/data", "--output-dir": Path("/out"), "--checkpoint": None})
    refuse_relative_paths({"INPUT": "s3://bucket/data"})
    with pytest.raises(UsageProblem, match="--output-dir: expected an absolute path"):
        refuse_relative_paths({"INPUT": "/data", "--output-dir": Path("out")})
    ended = command("somewhere")
    assert ended.status == 2
    assert "INPUT: expected an absolute path under `ray job submit`" in ended.err


def test_another_kind_of_address_is_refused(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    ended = command(folder)
    assert ended.status == 2
    assert "RAY_ADDRESS: expected HOST:PORT" in ended.err


def test_a_rerun_with_nothing_to_do_imports_no_ray(tmp_path: Path) -> None:
    write_tone(tmp_path / "in" / "a.wav")
    code = (
        "import sys; from tests.pipelines import fakes; import pytest\n"
        "fakes.install(pytest.MonkeyPatch())\n"
        "status = fakes.main([sys.argv[1], '--executor', sys.argv[2]])\n"
        "sys.exit(status or ('ray' in sys.modules) * 9)"
    )
    for executor in ("local", "ray"):
        run = [sys.executable, "-c", code, str(tmp_path / "in"), executor]
        subprocess.run(run, cwd=Path(__file__).parents[2], check=True, capture_output=True)


def test_cores_of_every_node_are_counted_and_others_join() -> None:
    layout = plan_layout([{"CPU": 0}, {"CPU": 4.0}], "auto", None)
    assert layout == Layout("cpu")
    assert layout.wanted([{"CPU": 0}, {"CPU": 4.0}]) == 4
    assert layout.wanted([{"CPU": 0}, {"CPU": 4.0}, {"CPU": 16.0}]) == 20
    assert layout.wanted([{"CPU": 0}]) == 1  # a node may yet come
    assert plan_layout([], "cpu", 64).wanted([]) == 64


def test_workers_share_a_gpu_and_leave_other_nodes_alone() -> None:
    nodes = [{"CPU": 32.0}, {"CPU": 16.0, "GPU": 4.0}]
    layout = plan_layout(nodes, "auto", None)
    assert (layout.device, layout.workers_a_gpu) == ("cuda", 4)
    assert layout.options == {"num_cpus": 1, "num_gpus": 0.25}
    assert layout.wanted(nodes) == 16
    assert plan_layout([{"CPU": 64.0, "GPU": 1.0}], "cuda", None).workers_a_gpu == 8
    assert plan_layout([{"CPU": 2.0, "GPU": 4.0}], "cuda", None).options["num_gpus"] == 1.0


@pytest.mark.parametrize("workers", range(1, 9))
def test_as_many_workers_fit_on_a_gpu_as_planned(workers: int) -> None:
    share = Layout("cuda", workers).options["num_gpus"]
    assert workers * share <= 1 < (workers + 1) * share


def test_a_gpu_that_no_node_has_is_refused() -> None:
    with pytest.raises(UsageProblem, match="--device cuda"):
        plan_layout([{"CPU": 8.0}], "cuda", None)
