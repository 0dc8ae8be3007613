"""A check that the cluster can import what the experiment names: Ray sends objects, but not their code."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import ClusterError


def check_imports(imports: Mapping[str, str], cluster: ClusterConfig) -> None:
    """Make sure that every node of a cluster that was joined has the modules that settings name.

    Args:
        imports: For each setting, a module or ``package.module:name``. Modules of this package are not checked.
        cluster: The settings of the cluster.

    Raises:
        ClusterError: a node lacks a module. The message says how it gets there.
    """
    own = __name__.partition(".")[0]
    named = {setting: name for setting, name in imports.items() if name.partition(":")[0].partition(".")[0] != own}
    if cluster.address == "local" or not named:
        return
    modules = [name.partition(":")[0] for name in named.values()]
    # Ray Client's objects pass through the head; otherwise a node without CPUs has no workers, and needs no code.
    nodes = [node for node in ray.nodes() if node["Alive"] and (cluster.ray_client or node["Resources"].get("CPU"))]
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=True) for node in nodes]
    try:
        found = ray.get([_missing.options(scheduling_strategy=place).remote(modules) for place in places])
    except RayError:  # a node was lost just now, which says nothing about the others
        return
    for node, reasons in zip(nodes, found, strict=True):
        for (setting, name), reason in zip(named.items(), reasons, strict=True):
            if reason is not None:
                raise ClusterError(
                    f"{setting} ({name}) cannot be imported on the node {node['NodeManagerAddress']} of the cluster at "
                    f"cluster.address {cluster.address}: {reason}. Nothing sends its code there. Install it on the nodes, "
                    "as dfnas_ray is, or let the cluster run the command: `dfnas submit` sends the working directory."
                )


@ray.remote(num_cpus=0)
def _missing(modules: list[str]) -> list[str | None]:
    """Return for each module why it cannot be found, or None."""
    return [_reason(module) for module in modules]


def _reason(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    except Exception:  # it exists; workers may have what else it needs
        return None
    return None
