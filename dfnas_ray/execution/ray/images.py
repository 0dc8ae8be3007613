"""The finished synthetic set in the cluster's object store: read once for all stages, and measured where it lies.

The driver never holds it, however large it is.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import ray

from dfnas_ray.config.cluster import WorkerResources
from dfnas_ray.execution.ray.cluster import worker_device
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages, load_shards
from dfnas_ray.synthesis.quality import measure_quality
from dfnas_ray.teachers.base import Teacher

ImagesRef: TypeAlias = "ray.ObjectRef[SyntheticImages]"


@ray.remote(num_cpus=0)
def load_images(folder: Location, manifest: dict[str, Any]) -> SyntheticImages:
    """Read the shards on some node into the object store, once for all trials and workers."""
    return load_shards(folder, manifest)


def measure_images(teacher: Teacher, images: ImagesRef, resources: WorkerResources) -> dict[str, Any]:
    """Return what `measure_quality` does, from a worker that holds ``resources``.

    Raises:
        ShardError: a shard is missing or altered.
    """
    task = _measure.options(**resources.options(), max_retries=resources.attempts - 1)
    return ray.get(task.remote(teacher, images, resources.cpus))


@ray.remote
def _measure(teacher: Teacher, images: SyntheticImages, threads: int) -> dict[str, Any]:
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # shared memory is read only
    device = worker_device(threads)
    return measure_quality(teacher.to(device), images)
