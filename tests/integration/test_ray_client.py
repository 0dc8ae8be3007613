"""A whole run through Ray Client: the command is no part of the cluster, and reaches it at ray://HOST:PORT."""

from __future__ import annotations

import pytest
import yaml
from ray_heads import ray_head
from undisturbed import assert_undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_run_through_ray_client_ends_with_the_same_bytes(tiny_run, tiny_values, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    run_dir = tmp_path / "run"
    with ray_head("--num-cpus=2", "--num-gpus=0") as head:
        assert head.client.startswith("ray://")
        driver = head.dfnas("run", "tiny.yaml", "--run-dir", run_dir, "--address", head.client, cwd=tmp_path)
        out, err = driver.communicate(timeout=500)
    assert driver.returncode == 0, out + err
    assert "Traceback" not in out + err
    assert_undisturbed(run_dir, tiny_run.folder)
