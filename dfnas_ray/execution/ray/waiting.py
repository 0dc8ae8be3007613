"""What is said while a cluster has no node for the workers of a stage: an autoscaler brings one, or never does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray

from dfnas_ray.config.cluster import ClusterStage, WorkerResources
from dfnas_ray.execution.ray.cluster import ClusterSize

logger = logging.getLogger(__name__)

_EVERY = 60.0  # seconds


@contextmanager
def waiting_is_told(size: ClusterSize, stage: ClusterStage, resources: WorkerResources) -> Iterator[None]:
    """In the block, say when no node has had room for a worker for a minute, and again after one came and went."""
    ended = threading.Event()

    def watch() -> None:
        is_told = False
        while not ended.wait(_EVERY):
            is_missing = False
            with suppress(Exception):  # whatever is wrong with the connection is found, and said, by the work itself
                is_missing = ray.is_initialized() and not size.has_node_for(resources)
            if is_missing and not is_told:
                logger.warning(
                    "No node of the cluster has room for a worker of the %s stage (%s). The command waits until one comes. "
                    "`ray status`, on the head, says what the autoscaler tries.",
                    stage,
                    size.described(stage, resources),
                )
            is_told = is_missing

    thread = threading.Thread(target=watch, name="waiting for nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
