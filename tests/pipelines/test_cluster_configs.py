"""The manifests for clusters: valid, and in step with the command and the image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.batch_transform import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "cluster"
TEXTS = [path.read_text() for path in sorted(CONFIGS.glob("*.yaml"))]


def load(name: str) -> Any:
    return yaml.safe_load((CONFIGS / name).read_text())


def test_the_launcher_takes_the_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(load("on_premises.yaml")))


def test_the_ray_job_is_one() -> None:
    job = load("kuberay_job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for part in pod["containers"] for mount in part["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    (workers,) = cluster["workerGroupSpecs"]
    asked = int(re.findall(r"--workers (\d+)", job["spec"]["entrypoint"])[0])
    assert asked == workers["maxReplicas"] * int(workers["rayStartParams"]["num-cpus"])


@pytest.mark.parametrize("text", TEXTS)
def test_commands_are_understood(text: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    found = re.findall(r"batch_transform (/[^'\n]+)", text)
    assert found
    for words in found:
        _, *options = words.split()
        options[options.index("--output-dir") + 1] = str(tmp_path / "out")
        # An empty directory is the only thing it may find wrong.
        assert main([str(tmp_path / "in"), *options]) == 2


def test_both_use_one_image() -> None:
    images = {image for text in TEXTS for image in re.findall(r"image: (\S+/\S+)", text)}
    assert len(images) == 1
