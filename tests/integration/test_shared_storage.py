"""A run directory that the nodes do not share is noticed before anything is made."""

from __future__ import annotations

import os

import pyarrow.fs as fs
import pytest
import ray

from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.ray import shared_storage
from dfnas_ray.execution.ray.shared_storage import SharedStorage, check_seen
from dfnas_ray.storage.location import Location
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session

pytestmark = pytest.mark.ray


@pytest.fixture
def mine_alone(tmp_path):
    """A folder by a path that leads there in this process, and nowhere in others."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.dup2(descriptor, 1000)  # a number that no worker has open
    os.close(descriptor)
    yield Location(fs.LocalFileSystem(), "/proc/self/fd/1000")
    os.close(1000)


@pytest.fixture
def several_nodes(monkeypatch):
    """The one node of the test's cluster counts as one of several; nobody is patient."""
    nodes = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {**nodes[0], "Alive": False}, {**nodes[0], "NodeID": "ab" * 28}])
    monkeypatch.setattr(shared_storage, "_PATIENCE", 0.0)
    monkeypatch.setattr(shared_storage, "_ANSWER_SECONDS", 5.0)


def test_a_node_that_does_not_see_the_run_directory_is_named(ray_cluster, several_nodes, mine_alone, tmp_path):
    (tmp_path / ".lock").touch()
    assert (mine_alone / ".lock").exists()
    with pytest.raises(ClusterError, match=r"/proc/self/fd/1000/\.lock.*does not exist on .*s3://bucket/prefix"):
        SharedStorage(mine_alone / ".lock").check()
    SharedStorage(Location.parse(tmp_path) / ".lock").check()  # another path to the same place, which all have


def test_a_worker_that_does_not_see_its_stages_folder_says_so(ray_cluster, mine_alone, tmp_path):
    @ray.remote
    def work(folder):
        shared_storage._PATIENCE = 0.0
        check_seen(folder)

    with pytest.raises(ClusterError, match="does not exist on"):
        ray.get(work.remote(mine_alone))
    ray.get(work.remote(Location.parse(tmp_path)))


def test_one_machine_is_not_asked(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_storage, "_sees", None)
    SharedStorage(Location.parse(tmp_path) / "absent").check()


def test_a_command_that_cannot_share_its_run_directory_makes_nothing(
    ray_cluster, several_nodes, tiny_experiment, tmp_path, monkeypatch
):
    monkeypatch.setattr(SharedStorage, "check", lambda self: (_ for _ in ()).throw(ClusterError(str(self.marker))))
    with pytest.raises(ClusterError, match=r"\.lock"), Session(tiny_experiment(tmp_path / "run")).opened() as session:
        order.synthesize(session)
    assert not list((tmp_path / "run").glob("synthesis"))
