"""What a cluster is started from is valid by the rules of those who will read it."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import torch
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from moss_tok.execution import Execution
from pipeline.config import load_config, parse_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEPLOY = Path(__file__).parent.parent / "deploy"


@pytest.fixture(scope="module")
def rayjob() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())


def test_the_image_passes_the_linter():
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_copies_what_exists_and_all_that_is_installed():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert copied >= {"moss_tok", "pipeline", "schemas", "jobs", "configs", "pyproject.toml", "constraints.txt"}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored)
    assert all((DEPLOY.parent / name).exists() for name in copied)


def test_the_image_has_the_compiler_that_compiled_layers_need():
    """Triton compiles the launcher of each kernel as an extension of Python."""
    assert Execution.for_device(torch.device("cuda"), torch.bfloat16).compile_backend == "inductor"
    installed = (DEPLOY / "Dockerfile").read_text().partition("apt-get install")[2].partition("\n")[0].split()
    assert {"gcc", "libc6-dev"} <= set(installed)


def test_pods_of_the_ray_job_are_pods(rayjob: dict[str, Any]):
    cluster = rayjob["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", **template.get("metadata", {})}}
        kubernetes_validate.validate(
            pod | {"spec": template["spec"]}, kubernetes_validate.latest_version(), strict=True
        )
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_ray_job_says_what_the_operator_reads(rayjob: dict[str, Any]):
    """The keys of a RayJob that are used, after KubeRay's resource definition, ray.io/v1."""
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    known = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
    assert set(rayjob["spec"]) <= known
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert set(cluster) <= {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
    for group in cluster["workerGroupSpecs"]:
        assert {"groupName", "template", "rayStartParams"} <= set(group)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    locked = next(line for line in _constraints() if line.startswith("ray=="))
    assert f"ray=={cluster['rayVersion']}" == locked == f"ray=={ray.__version__}"


def test_the_ray_jobs_command_is_one_that_runs(rayjob: dict[str, Any]):
    command = rayjob["spec"]["entrypoint"].split()
    script = DEPLOY.parent / Path(command[1]).relative_to("/opt/moss-tok")
    sys.path.insert(0, str(script.parent))
    try:
        arguments = __import__(script.stem).arguments_of(command[2:])
    finally:
        sys.path.remove(str(script.parent))
    assert arguments[0] == "tokenize"
    config = load_config(arguments[1], arguments[2:])
    assert config.model.dtype == "bfloat16"
    assert config.input.splits.keys() == {"train", "eval"}


def test_the_job_of_the_hub_is_one_file_that_names_what_it_needs():
    """The header is that of PEP 723, which uv reads; the configuration is in the file."""
    text = (DEPLOY / "hf_job.py").read_text()
    (header,) = re.findall(r"^# /// script\n((?:#.*\n)+?)# ///$", text, flags=re.MULTILINE)
    needed = tomllib.loads(re.sub(r"^# ?", "", header, flags=re.MULTILINE))
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    assert needed["requires-python"] == project["requires-python"]
    assert needed["dependencies"] == [project["name"]]
    wheel = f"moss_tok-{project['version']}-py3-none-any.whl"
    assert needed["tool"]["uv"]["sources"]["moss-tok"]["url"].endswith(f"/{wheel}")
    assert f"dist/{wheel}" in text
    config = parse_config(yaml.safe_load(runpy.run_path(str(DEPLOY / "hf_job.py"))["CONFIG"]))
    assert config.output.uri.startswith(re.findall(r"--volume hf://buckets/\S+:(/\S+)", text)[0] + "/")


def test_the_cluster_launcher_takes_its_configuration():
    config = prepare_config(yaml.safe_load((DEPLOY / "aws-cluster.yaml").read_text()))
    validate_config(config)
    workers = config["available_node_types"]["gpu"]
    assert workers["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def _constraints() -> list[str]:
    lines = (DEPLOY.parent / "constraints.txt").read_text().splitlines()
    return [line.split(" ")[0].split(";")[0].strip() for line in lines]
