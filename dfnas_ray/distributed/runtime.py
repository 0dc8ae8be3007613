"""Starting, joining and leaving a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from types import TracebackType
from typing import Self

import ray
import torch

from dfnas_ray.distributed.config import ClusterConfig
from dfnas_ray.errors import ClusterError

_CONNECT_SECONDS = 5.0
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's banner, printed even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # halves the cost of a trial
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # most of a short job's time is this polling
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class RayRuntime:
    """A Ray cluster for the time of one command; joined when it is first needed, left at the end.

    A cluster that was there before is left running.
    """

    def __init__(self, config: ClusterConfig, verbose: bool = False):
        self.config, self.verbose = config, verbose
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._started:
            ray.shutdown()
            self._started = False

    def ensure(self) -> None:
        """Start or join the cluster, unless this process is connected already.

        Raises:
            ClusterError: the address cannot be reached.
        """
        if ray.is_initialized():
            return
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        address = self.config.address
        level = logging.INFO if self.verbose else logging.ERROR
        if not self.verbose:
            for name in ("ray.tune", "ray.train"):  # the traceback of a failed trial; the error says what failed
                logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            if address == "local":
                ray.init(
                    address="local",
                    num_cpus=self.config.num_cpus,
                    num_gpus=self.config.num_gpus,
                    include_dashboard=False,
                    log_to_driver=self.verbose,
                    logging_level=level,
                )
            else:
                _probe(address)
                ray.init(address=address, log_to_driver=self.verbose, logging_level=level)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"Ray at cluster.address {address} cannot be reached: {str(error).splitlines()[0]} "
                "Start a cluster there (`ray start --head`), or use --address local."
            ) from error
        self._started = True

    def check_fits(self, stage: str, cpus: float, gpus: float, workers: int = 1) -> None:
        """Make sure that the cluster can ever hold ``workers`` workers at once.

        Raises:
            ClusterError: it cannot; says what it has. An autoscaling cluster counts with what it may become.
        """
        total = ray.cluster_resources()
        has_cpus, has_gpus = int(total.get("CPU", 0)), total.get("GPU", 0.0)
        if gpus * workers > has_gpus:
            raise ClusterError(
                f"The {stage} stage asks for {gpus * workers:g} GPUs (cluster.{stage}.gpus={gpus:g}, {workers} worker(s)), "
                f"and the cluster has {has_gpus:g}. Lower cluster.{stage}.gpus; 0 runs on CPUs."
            )
        if cpus * workers > has_cpus:
            raise ClusterError(
                f"The {stage} stage asks for {cpus * workers:g} CPUs (cluster.{stage}.cpus={cpus:g}, {workers} worker(s)), "
                f"and the cluster has {has_cpus}. Lower cluster.{stage}.cpus."
            )

    def describe(self) -> dict[str, str | int | float]:
        """Return the cluster's size and Ray's version."""
        total = ray.cluster_resources()
        return {
            "ray": ray.__version__,
            "nodes": len([node for node in ray.nodes() if node["Alive"]]),
            "cpus": total.get("CPU", 0.0),
            "gpus": total.get("GPU", 0.0),
        }

    def room_for(self, cpus: float, gpus: float) -> int:
        """Return how many workers of this size the cluster holds, at least one."""
        total = ray.cluster_resources()
        room = int(total.get("CPU", 0) // cpus)
        if gpus:
            room = min(room, int(total.get("GPU", 0.0) / gpus + 1e-9))
        return max(1, room)


def worker_device(threads: int) -> torch.device:
    """Prepare the calling worker process: its number of threads, and the device that Ray gave it."""
    torch.set_num_threads(threads)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on a machine without a GPU it says so
    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")


def _probe(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and port.isdigit():
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)):
            pass
