"""A check that every node sees the run directory.

If each node has a path of this name for itself, every worker makes the folder and writes into it without an error.
Hours later the command finds nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from dfnas_ray.errors import ClusterError
from dfnas_ray.storage.location import Location

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 90.0
_PATIENCE = 60.0  # an NFS client may report a new file as missing for so long
_SHOWN = 3


class SharedStorage:
    """Asks each node of a cluster once whether it sees a file of this command, the marker."""

    def __init__(self, marker: Location):
        self.marker = marker
        self._asked: set[str] = set()

    def check(self) -> None:
        """Ask the nodes that are new since the last check. A node that does not answer in time counts as seeing it.

        Raises:
            ClusterError: a node does not see the file. The message names the node.
        """
        if not self.marker.is_local:
            return
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        if len(nodes) == 1 and not ray.util.client.ray.is_connected():
            return  # this very machine
        calls = {
            _sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                self.marker, _PATIENCE
            ): node
            for node in nodes
            if node not in self._asked
        }
        answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=_ANSWER_SECONDS) if calls else ([], [])
        blind = [nodes[calls[call]] for call in answered if not _answer(call)]
        if blind:
            raise ClusterError(_message(self.marker, blind))
        self._asked.update(calls[call] for call in answered)


def check_seen(folder: Location) -> None:
    """Make sure that this worker sees the folder of its stage, which the command has made.

    Raises:
        ClusterError: it does not. The message names the node.
    """
    if folder.is_local and not _appears(folder, _PATIENCE):
        raise ClusterError(_message(folder, [ray.util.get_node_ip_address()]))


def _appears(file: Location, patience: float) -> bool:
    waiting = Retrying(
        retry=retry_if_result(lambda is_there: not is_there),
        stop=stop_after_delay(patience),
        wait=wait_fixed(1.0),
        retry_error_callback=lambda state: False,
    )
    return bool(waiting(file.exists))


_sees = ray.remote(num_cpus=0, max_retries=0)(_appears)  # on another node


def _answer(call: Any) -> bool:
    try:
        return bool(ray.get(call))
    except RayError as error:  # the node was lost, and its workers with it
        logger.debug("A node did not say whether it sees the run directory: %s", error)
        return True


def _message(place: Location, nodes: list[str]) -> str:
    shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
    return (
        f"{place}, where this command works, does not exist on {shown}: what workers write there would be lost. Put "
        "run_dir on a file system that all nodes share, or in an object store, such as s3://bucket/prefix."
    )
