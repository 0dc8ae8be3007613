"""A whole machine is lost at work and another joins: the run ends with the bytes of an undisturbed one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from ray_heads import Node, end, ray_head
from undisturbed import assert_undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def head():
    with ray_head("--num-cpus=0", "--num-gpus=0") as started:  # the head only keeps the books
        yield started


@pytest.mark.parametrize(
    "artefact",
    [
        pytest.param("synthesis/*/shard-*.parquet", id="synthesis"),
        pytest.param("search/*/*-seed-*/state.pt", id="search"),
        pytest.param("retraining/*/train/checkpoint_*/state.pt", id="retraining"),
    ],
)
def test_a_lost_node_and_a_new_one_end_as_if_undisturbed(head, tiny_run, tiny_values, tmp_path, artefact):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    run_dir = tmp_path / "run"
    nodes = [Node(head, "--num-cpus=2", "--num-gpus=0")]
    try:
        nodes[0].wait()
        driver = head.dfnas("run", "tiny.yaml", "--run-dir", run_dir, "--address", head.address, cwd=tmp_path)
        wait_for(run_dir, artefact, driver)
        nodes[0].lose()
        nodes.append(Node(head, "--num-cpus=2", "--num-gpus=0"))
        out, err = driver.communicate(timeout=400)
        assert driver.returncode == 0, out + err
        assert_undisturbed(run_dir, tiny_run.folder)
        assert "Traceback" not in out + err
        assert any(words in err for words in ("died", "broke off")), err
    finally:
        for node in nodes:
            end(node.process)


def wait_for(run_dir: Path, artefact: str, driver, seconds: float = 200) -> None:
    limit = time.monotonic() + seconds
    while not list(run_dir.glob(artefact)):
        assert driver.poll() is None, "".join(driver.communicate())
        assert time.monotonic() < limit, f"{artefact} did not appear"
        time.sleep(0.02)
