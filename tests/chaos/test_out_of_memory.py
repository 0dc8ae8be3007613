"""A node that has no memory left: Ray ends a worker, and the command says so in a sentence that names the setting."""

from __future__ import annotations

import os
import sys
from subprocess import PIPE, STDOUT, Popen

import psutil
import pytest
import yaml

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SPARE, TAKEN = 4 * 2**30, 6 * 2**30  # bytes that the node may still use, and what the teacher takes

BUILDER = f"""
import time
from pathlib import Path

import torch

from dfnas_ray.teachers.digits import DigitsCNN

HERE = Path(__file__).parent


class Hungry(DigitsCNN):
    def forward(self, x):
        in_worker = Path("/proc/self/cmdline").read_bytes().startswith(b"ray::")
        if in_worker and list(HERE.glob((HERE / "when").read_text())):
            taken = torch.ones({TAKEN // 4})
            time.sleep(60)
        return super().forward(x)
"""


@pytest.fixture
def environment(tmp_path):
    """The environment of a node that has little memory left."""
    memory = psutil.virtual_memory()
    if memory.available < SPARE + TAKEN:  # what is said of such an end is tested everywhere: tests/unit/execution
        pytest.skip(f"needs {(SPARE + TAKEN) / 2**30:.0f} GB of free memory")
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_memory_usage_threshold": str((memory.total - memory.available + SPARE) / memory.total),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }


@pytest.mark.parametrize(
    ("stage", "when"),
    [("synthesis", "when"), ("search", "run/synthesis/*/done.json"), ("retraining", "run/search/*/done.json")],
)
def test_a_worker_without_memory_is_one_sentence_that_names_the_setting(
    tiny_values, environment, tmp_path, stage, when
):
    import torch

    from dfnas_ray.teachers.digits import DigitsCNN

    torch.manual_seed(0)
    torch.save(DigitsCNN(4).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "hungry.py").write_text(BUILDER)
    (tmp_path / "when").write_text(when)
    teacher = {
        "kind": "checkpoint",
        "builder": "hungry:Hungry",
        "arguments": {"width": 4},
        "checkpoint": "weights.pt",
        "image_shape": [1, 16, 16],
        "mean": [0.5],
        "std": [0.5],
    }
    experiment = {**tiny_values(), "teacher": teacher, "run_dir": "run"}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment))
    line = [sys.executable, "-m", "dfnas_ray", "run", "e.yaml"]
    command = Popen(line, cwd=tmp_path, env=environment, stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)
    said, _ = command.communicate(timeout=600)
    assert command.returncode == 2, said[-3000:]
    error = " ".join(said.rpartition("error: ")[2].split())
    assert "its node had no memory left, and Ray ended it." in error, said[-3000:]
    assert f"cluster.{stage}.memory, such as 8GB" in error
    assert "Traceback" not in said
    assert len(said.splitlines()) < 60, said


TASKS = f"""
import sys
import time
from pathlib import Path

import ray
import torch

from dfnas_ray.config.cluster import ClusterConfig, SearchResources
from dfnas_ray.execution.ray.connection import Connection
from dfnas_ray.execution.ray.executor import _compute
from dfnas_ray.execution.ray.trials import ScoringWorkers


def eat():
    with Path("tries").open("a") as file:
        file.write("x")
    taken = torch.ones({TAKEN // 4})
    time.sleep(60)


class Hungry(torch.nn.Module):
    def forward(self, genotypes):
        if Path("/proc/self/cmdline").read_bytes().startswith(b"ray::"):
            eat()
        return [{{}} for _ in genotypes]


connection = Connection(ClusterConfig(num_cpus=1))
connection.ensure()
try:
    if sys.argv[1] == "score":
        resources = SearchResources(attempts=2, scoring_workers=1)
        ScoringWorkers(Hungry(), resources, torch.device("cpu"))(["0", "1"])
    else:
        ray.get(_compute.remote(eat))
except ray.exceptions.OutOfMemoryError:
    print("no memory")
connection.close()
"""


@pytest.mark.parametrize(("kind", "attempts"), [("score", 2), ("compute", 4)])
def test_work_without_memory_is_not_tried_for_ever(environment, tmp_path, kind, attempts):
    (tmp_path / "tasks.py").write_text(TASKS)
    line = [sys.executable, "tasks.py", kind]
    command = Popen(line, cwd=tmp_path, env=environment, stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)
    said, _ = command.communicate(timeout=300)
    assert "no memory" in said, said[-3000:]
    assert (tmp_path / "tries").read_text() == "x" * attempts
