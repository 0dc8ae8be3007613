"""A whole run through Ray Client: the command is no part of the cluster, and reaches it at ray://HOST:PORT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ray_heads import REPOSITORY, Head, ray_head
from undisturbed import assert_undisturbed

from dfnas_ray.teachers.digits import DigitsCNN

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


LOSE_THE_FIRST_SERVER = """
import os, sys
if "--mode=specific-server" in sys.orig_argv:
    try:
        os.close(os.open({marker!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass
    else:
        os._exit(1)
"""


def run_through(head: Head, values: dict[str, Any], folder: Path, command: str = "run") -> str:
    """Run an experiment from outside of the cluster; return what the command said."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    assert head.client.startswith("ray://")
    driver = head.dfnas(command, "tiny.yaml", "--run-dir", folder / "run", "--address", head.client, cwd=folder)
    out, err = driver.communicate(timeout=500)
    assert driver.returncode == 0, out + err
    assert "Traceback" not in out + err
    return out + err


def test_a_run_through_ray_client_ends_with_the_same_bytes(tiny_run, tiny_values, tmp_path):
    with ray_head("--num-cpus=2", "--num-gpus=0") as head:
        run_through(head, tiny_values(), tmp_path)
    assert_undisturbed(tmp_path / "run", tiny_run.folder)


def test_a_search_whose_candidates_are_proposed_works_through_ray_client(tiny_values, tmp_path):
    """Its searcher is sent to the head, with a study that is in memory."""
    values = tiny_values()
    values["synthesis"]["num_shards"], values["synthesis"]["method"]["rounds"] = 1, 1
    algorithm = {"candidates": 4, "max_epochs": 2, "reduction_factor": 2, "batch_size": 16, "proposals": "tpe"}
    values["search"] |= {"algorithm": {"kind": "multi_fidelity", **algorithm}, "seeds": [0]}
    with ray_head("--num-cpus=2", "--num-gpus=0") as head:
        run_through(head, values, tmp_path, "search")
    candidates = [json.loads(file.read_text()) for file in tmp_path.glob("run/search/*/*/candidate-*.json")]
    assert sorted(each["number"] for each in candidates) == [0, 1, 2, 3]
    assert any(each["results"][-1]["epochs"] == 2 for each in candidates)


def test_a_sweep_works_through_ray_client_where_the_head_shares_its_folder(tiny_values, tmp_path):
    sweep = {
        "settings": {"synthesis.regularizers.bn_statistics.weight": {"log_uniform": [0.1, 10]}},
        "fixed": {"synthesis.num_shards": 1},
        "objectives": ["domain_gap"],
        "trials": 3,
    }
    with ray_head("--num-cpus=2", "--num-gpus=0") as head:
        run_through(head, {**tiny_values(), "sweep": sweep}, tmp_path, "sweep")
    (trials,) = tmp_path.glob("run/sweep/*/trials.json")
    assert [trial["state"] for trial in json.loads(trials.read_text())] == ["complete"] * 3
    assert list(tmp_path.glob("run/sweep/*/best.yaml"))


def test_a_builder_in_the_working_directory_alone_is_refused_in_one_sentence(tmp_path, tiny_values):
    (tmp_path / "net_of_this_test.py").write_text(
        "from dfnas_ray.teachers.digits import DigitsCNN\n\n\nclass Mine(DigitsCNN):\n    pass\n"
    )
    torch.save(DigitsCNN(width=4).state_dict(), tmp_path / "x.pt")
    teacher = {
        "kind": "checkpoint",
        "checkpoint": "x.pt",
        "builder": "net_of_this_test:Mine",
        "arguments": {"width": 4},
    }
    values = {**tiny_values(), "teacher": {**teacher, "image_shape": [1, 16, 16], "mean": [0.3], "std": [0.3]}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    with ray_head("--num-cpus=1", "--num-gpus=0") as head:
        driver = head.dfnas("run", "tiny.yaml", "--run-dir", tmp_path / "run", "--address", head.client, cwd=tmp_path)
        out, err = driver.communicate(timeout=200)
    assert driver.returncode == 2, out + err
    assert "teacher.builder (net_of_this_test:Mine) cannot be imported on the node" in err
    assert "Traceback" not in out + err
    assert not (tmp_path / "run").exists()


def test_a_server_that_dies_before_the_command_is_connected_is_asked_for_again(tiny_run, tiny_values, tmp_path):
    marker = tmp_path / "lost"
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "sitecustomize.py").write_text(LOSE_THE_FIRST_SERVER.format(marker=str(marker)))
    path = f"{tmp_path / 'head'}:{REPOSITORY}"
    with ray_head("--num-cpus=2", "--num-gpus=0", environment={"PYTHONPATH": path}) as head:
        said = run_through(head, tiny_values(), tmp_path)
    assert marker.exists()
    assert "did not start a server for this command (RuntimeError: " in said, said
    assert "trying again, attempt 2 of 5" in said
    assert_undisturbed(tmp_path / "run", tiny_run.folder)
