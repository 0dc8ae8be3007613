"""A network's code has to be where its workers are: found out before anything is made."""

import pytest

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.ray.imports import check_imports

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
