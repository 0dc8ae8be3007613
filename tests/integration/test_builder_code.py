"""The code of a network or of a plug-in has to be where its workers are: found out before anything is made."""

import sys

import pytest
import ray
from outside_package import OutsidePackages

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.ray.imports import check_imports
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session

pytestmark = pytest.mark.ray


def test_a_builder_that_the_nodes_lack_is_named_with_the_way_to_send_it(ray_cluster):
    with pytest.raises(ClusterError) as refused:
        check_imports({"teacher.builder": "no_such_module:build"}, ClusterConfig(address="auto"))
    message = str(refused.value)
    assert "teacher.builder (no_such_module:build) cannot be imported on the node" in message
    assert "cluster.address auto: No module named 'no_such_module'" in message
    assert "`dfnas submit` sends the working directory" in message


@pytest.mark.parametrize(
    ("builder", "address"),
    [
        ("json.decoder:JSONDecoder", "auto"),
        ("dfnas_ray.no_such_module:build", "auto"),
        ("no_such_module:build", "local"),
    ],
)
def test_a_builder_that_is_there_or_is_our_own_passes(ray_cluster, builder, address):
    check_imports({"teacher.builder": builder}, ClusterConfig(address=address))


SPACE = """
from typing import Literal

from dfnas_ray.search_spaces import NASBenchMacroConfig


class HereOnly(NASBenchMacroConfig):
    kind: Literal["here_only"] = "here_only"
"""


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_plug_in_that_the_nodes_lack_is_refused_before_anything_is_made(
    ray_cluster, tiny_experiment, tmp_path, monkeypatch, is_installed
):
    packages = OutsidePackages(tmp_path / "packages", monkeypatch)
    if is_installed:
        packages.install("my-package", "spaces_here_only", SPACE, {"here_only": "HereOnly"})
    else:
        (tmp_path / "packages").mkdir()
        packages.module("spaces_here_only", SPACE)
    kind = "here_only" if is_installed else "spaces_here_only:HereOnly"
    run_dir = tmp_path / "run"
    address = ray.get_runtime_context().gcs_address
    config = tiny_experiment(run_dir, f"search.space={kind}", f"cluster.address={address}", "cluster.num_cpus=null")
    with pytest.raises(ClusterError) as refused, Session(config).opened() as session:
        order.run(session)
    packages.remove()
    message = str(refused.value)
    assert "search.space (spaces_here_only) cannot be imported on the node" in message
    assert "No module named 'spaces_here_only'" in message
    assert "Install it on the nodes" in message
    assert not list(run_dir.rglob("*.parquet"))
    assert "spaces_here_only" not in sys.modules
