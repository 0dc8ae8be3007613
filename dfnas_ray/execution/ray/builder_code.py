"""Whether the cluster can import the code that a teacher is built by: Ray sends a network, and of its code only the name."""

from __future__ import annotations

import importlib

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import ClusterError


def check_builder(builder: str, cluster: ClusterConfig) -> None:
    """Make sure that every node of a cluster that was joined has the module of ``teacher.builder``.

    Args:
        builder: package.module:function; that of this package is everywhere.
        cluster: How the cluster was joined.

    Raises:
        ClusterError: a node lacks it; says how it gets there.
    """
    module = builder.partition(":")[0]
    if cluster.address == "local" or module.partition(".")[0] == __name__.partition(".")[0]:
        return
    # Ray Client's objects pass through the head; otherwise a node without CPUs has no workers, and needs no code.
    nodes = [node for node in ray.nodes() if node["Alive"] and (cluster.ray_client or node["Resources"].get("CPU"))]
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=True) for node in nodes]
    try:
        reasons = ray.get([_reason.options(scheduling_strategy=place).remote(module) for place in places])
    except RayError:  # a node that is lost right now is no news about the others
        return
    for node, reason in zip(nodes, reasons, strict=True):
        if reason is not None:
            raise ClusterError(
                f"teacher.builder ({builder}) cannot be imported on the node {node['NodeManagerAddress']} of the cluster at "
                f"cluster.address {cluster.address}: {reason}. Nothing sends its code there. Install it on the nodes, as "
                "dfnas_ray is, or let the cluster run the command: `dfnas submit` sends the working directory."
            )


@ray.remote(num_cpus=0)
def _reason(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    except Exception:  # it is there; what else it needs, its workers may have
        return None
    return None
