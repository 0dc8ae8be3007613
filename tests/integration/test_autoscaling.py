"""A submitted job on a cluster whose workers are started by Ray's autoscaler, from zero."""

from __future__ import annotations

import json

import pytest
import yaml
from ray.util import get_node_ip_address
from ray_heads import free_ports, ray_head

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = {  # Ray's provider for tests: its "machines" are Ray nodes on this one
    "cluster_name": "growing",
    "max_workers": 2,
    "idle_timeout_minutes": 1,
    "upscaling_speed": 10.0,
    "provider": {"type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True},
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}
HEAD_NODE = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # the name that the provider gives its head


@pytest.fixture
def growing(tmp_path):
    """A head without any CPU, whose autoscaler may add two nodes of one CPU each."""
    file = tmp_path / "autoscaling.json"
    (port,) = free_ports(1)
    provider = CONFIG["provider"] | {"head_node_id": HEAD_NODE, "gcs_address": f"{get_node_ip_address()}:{port}"}
    file.write_text(json.dumps(CONFIG | {"provider": provider}))
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE,
    }
    options = ("--num-cpus=0", "--num-gpus=0", f"--autoscaling-config={file}")
    with ray_head(*options, port=port, environment=environment) as head:
        yield head


def submit(head, tmp_path, tiny_values, *settings: str) -> tuple[int, str]:
    values = tiny_values()
    values["synthesis"]["num_shards"], values["synthesis"]["method"]["rounds"] = 2, 1
    root = tmp_path / "project"
    root.mkdir()
    (root / "tiny.yaml").write_text(yaml.safe_dump(values))
    command = ["submit", "tiny.yaml", "--command", "synthesize", "--run-dir", tmp_path / "run"]
    process = head.dfnas(*command, *(word for setting in settings for word in ("--set", setting)), cwd=root)
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, out + err


def test_a_job_brings_the_workers_that_the_cluster_may_grow_to(growing, tmp_path, tiny_values):
    code, output = submit(growing, tmp_path, tiny_values, "cluster.max_cpus=2")
    assert code == 0, output
    assert "40 images in 2 shards" in output


def test_without_the_limits_a_cluster_at_zero_refuses_and_names_the_setting(growing, tmp_path, tiny_values):
    code, output = submit(growing, tmp_path, tiny_values)
    assert code == 2, output
    assert "say with cluster.max_cpus" in output
