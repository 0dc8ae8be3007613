"""A whole machine is lost at work and another joins: the run ends with the bytes of an undisturbed one."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from ray_heads import Node, end, ray_head
from undisturbed import assert_undisturbed

from dfnas_ray.library import run as run_experiment

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
    ],
)
def test_a_lost_node_and_a_new_one_end_as_if_undisturbed(head, tiny_run, tiny_values, tmp_path, artefact):
    err = run_and_lose_a_node(head, tiny_values(), tmp_path, artefact)
    assert_undisturbed(tmp_path / "run", tiny_run.folder)
    assert any(words in err for words in ("died", "was interrupted")), err


def test_a_node_lost_while_retraining_changes_nothing_but_the_log(
    head, tiny_run, tiny_values, tiny_experiment, tmp_path
):
    epochs = 60  # the tiny experiment's two would be over before the node is gone
    undisturbed = tmp_path / "undisturbed"
    for folder in (undisturbed, tmp_path / "run"):
        shutil.copytree(tiny_run.folder, folder, ignore=shutil.ignore_patterns("retraining", "baseline"))
    run_experiment(tiny_experiment(undisturbed, f"retraining.epochs={epochs}"))
    values = tiny_values()
    values["retraining"]["epochs"] = epochs

    err = run_and_lose_a_node(head, values, tmp_path, "retraining/*/train/checkpoint_*/state.pt")

    assert_undisturbed(tmp_path / "run", undisturbed)
    assert "Retraining was interrupted: start 2 continues after epoch" in err


def run_and_lose_a_node(head, values, folder: Path, artefact: str) -> str:
    """Run the experiment in ``folder / "run"``; when the artefact appears, lose the node and add one. Return the log."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    with nodes_of(head) as start_node:
        node = start_node().wait()
        driver = head.dfnas("run", "tiny.yaml", "--run-dir", folder / "run", "--address", head.address, cwd=folder)
        wait_for(folder / "run", artefact, driver)
        node.lose()
        start_node()
        out, err = driver.communicate(timeout=400)
    assert driver.returncode == 0, out + err
    assert "Traceback" not in out + err
    return err


@contextmanager
def nodes_of(head):
    """A function that starts a node of two CPUs; all of them are ended in the end."""
    nodes: list[Node] = []

    def start_node() -> Node:
        nodes.append(Node(head, "--num-cpus=2", "--num-gpus=0"))
        return nodes[-1]

    try:
        yield start_node
    finally:
        for node in nodes:
            end(node.process)


def wait_for(run_dir: Path, artefact: str, driver, seconds: float = 200) -> None:
    limit = time.monotonic() + seconds
    while not list(run_dir.glob(artefact)):
        assert driver.poll() is None, "".join(driver.communicate())
        assert time.monotonic() < limit, f"{artefact} did not appear"
        time.sleep(0.02)
