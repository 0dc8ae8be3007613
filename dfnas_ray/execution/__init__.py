"""Executors: they run work in this process, or spread it over a Ray cluster.

Every worker process imports this module, also that of the board, which needs no torch. So it imports nothing that
imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dfnas_ray.errors import ClusterError

if TYPE_CHECKING:
    from dfnas_ray.config.cluster import ClusterConfig
    from dfnas_ray.execution.base import Executor
    from dfnas_ray.storage.location import Location


def make_executor(
    cluster: ClusterConfig, marker: Location, imports: Mapping[str, str] | None = None, verbose: bool = False
) -> Executor:
    """Return the executor that ``cluster.address`` names, not yet opened; the arguments are those of `Executor`.

    Raises:
        ClusterError: the executor needs Ray, which cannot be imported.
    """
    if cluster.is_inline:
        from dfnas_ray.execution.inline import InlineExecutor

        return InlineExecutor(cluster, marker, imports, verbose)
    try:
        from dfnas_ray.execution.ray.executor import RayExecutor
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ClusterError(
            f"cluster.address ({cluster.address}) needs Ray, which cannot be imported here: {error}. Install it (pip install "
            "'ray[default,tune,train]'), or set cluster.address to inline (--address inline): all work then runs in "
            "this process."
        ) from error
    return RayExecutor(cluster, marker, imports, verbose)
