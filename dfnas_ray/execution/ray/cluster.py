"""Starting, joining and leaving a Ray cluster."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
import torch
from pydantic import ByteSize
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from dfnas_ray.config.cluster import ClusterConfig, WorkerResources
from dfnas_ray.errors import ClusterError

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_JOIN_ATTEMPTS = 5
_WORKERS_SETTING = {  # per stage: what sets its number of workers, and how many there are besides
    "synthesis": ("cluster.synthesis.actors", 0),
    "search": ("cluster.search.scoring_workers", 1),
    "retraining": ("retraining.num_workers", 0),
}
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's banner, printed even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # halves the cost of a trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end an experiment as if it were finished
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a setting that cannot work has no figure, and says so
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
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        if ray.is_initialized():
            return
        address = self.config.address
        level = logging.INFO if self.verbose else logging.ERROR
        if not self.verbose:
            for name in ("ray.tune", "ray.train"):  # the traceback of a failed trial; the error says what failed
                logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            if address == "local":
                os.environ.update(token_settings(os.environ))
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
                _join(address, log_to_driver=self.verbose, logging_level=level)
        except ConnectionAbortedError as error:  # Ray Client alone: its proxy answers, and cannot serve
            raise ClusterError(
                f"Ray at cluster.address {address} answers, and did not start a server for this command in "
                f"{_JOIN_ATTEMPTS} attempts: {_reason(error)}. Look into ray_client_server*.err in the head's log folder "
                "(/tmp/ray/session_latest/logs), or run the command on the cluster, with `dfnas submit`."
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"Ray at cluster.address {address} cannot be reached: {_reason(error)}. "
                "Start a cluster there (`ray start --head`), or use --address local."
            ) from error
        self._started = True

    def check_fits(self, stage: str, resources: WorkerResources, workers: int = 1) -> None:
        """Make sure that the cluster can ever hold ``workers`` workers at once.

        Raises:
            ClusterError: it cannot; says what it has, and which settings ask for more. An autoscaling cluster counts
                with what it may grow to, as the settings say.
        """
        room = self._room(resources)
        if workers <= room:
            return
        bundle, total = resources.bundle(), self._capacity()
        if "GPU" in bundle:
            total = {**total, **{k: max(total.get(k, 0.0), amount) for k, amount in self._to_come(bundle).items()}}
        short = [kind for kind in ("GPU", "CPU", *bundle) if bundle.get(kind, 0) * workers > total.get(kind, 0.0)]
        if not short:  # enough in all, and nowhere together
            largest = max((node["Resources"] for node in _nodes()), key=lambda node: node.get("CPU", 0.0))
            asked = ", ".join(f"cluster.{stage}.{resources.setting(k)}={_amount(k, v)}" for k, v in bundle.items())
            has = ", ".join(_shown(kind, largest.get(kind, 0.0)) for kind in bundle)
            where = {"STRICT_PACK": "all on one node", "STRICT_SPREAD": "each on a node of its own"}.get(
                resources.placement, "each on one node"
            )
            raise ClusterError(
                f"The {stage} stage asks for {workers} worker(s) with {asked}, {where} "
                f"(cluster.{stage}.placement={resources.placement}), and the cluster's nodes have room for {room} (the "
                f"largest has {has}). Lower one of these settings, or change the placement."
            )
        kind = short[0]
        amount, has_now = bundle[kind], total.get(kind, 0.0)
        size = f"cluster.{stage}.{resources.setting(kind)}"
        advice = f"Lower {size}{'; 0 runs on CPUs' if kind == 'GPU' else ''}."
        asked = f"{size}={_amount(kind, amount)}"
        if workers > 1:
            setting, besides = _WORKERS_SETTING[stage]
            asked += f" for each of {workers} workers: {setting}={workers - besides}"
            asked += ", and the trial itself" if besides else ""
            if room:
                advice = f"Lower {setting} to {room - besides}, or l{advice[1:]}"
            else:
                advice = f"Not even one worker has room. {advice}"
        if self.config.address != "local" and kind in ("CPU", "GPU"):
            advice += (
                f" If the cluster autoscales, say with cluster.max_{kind.lower()}s how many {kind}s it may grow to."
            )
        raise ClusterError(
            f"The {stage} stage asks for {_shown(kind, amount * workers)} ({asked}), and the cluster has "
            f"{_amount(kind, has_now)}. {advice}"
        )

    def describe(self) -> dict[str, str | int | float]:
        """Return the cluster's size and Ray's version."""
        total = ray.cluster_resources()
        return {
            "ray": ray.__version__,
            "nodes": len(_nodes()),
            "cpus": total.get("CPU", 0.0),
            "gpus": total.get("GPU", 0.0),
        }

    def room_for(self, resources: WorkerResources) -> int:
        """Return how many workers of this size the cluster holds, or may grow to hold; at least one.

        Each is placed by itself: a strict placement binds workers that start together.
        """
        return max(1, self._room(resources.model_copy(update={"placement": "PACK"})))

    def room_beside(self, resources: WorkerResources, others: WorkerResources, num_others: int) -> int:
        """Return how many workers of this size have room while ``num_others`` workers of another size are at work."""
        bundle, taken = resources.bundle(), others.bundle()
        nodes: list[dict[str, float]] = [dict(node["Resources"]) for node in _nodes()]
        nodes.append(self._to_come(bundle, taken))
        for _ in range(num_others):
            # Each other worker goes where it costs the fewest places: one without a GPU to a node without GPUs.
            choices = [(node, _without(node, taken)) for node in nodes if _how_many(node, taken)]
            if not choices:
                nodes = []
                break
            node, left = min(choices, key=lambda choice: _how_many(choice[0], bundle) - _how_many(choice[1], bundle))
            node.update(left)
        room = sum(_how_many(node, bundle) for node in nodes)
        if self._autoscales:
            known = {kind: amount for kind, amount in bundle.items() if kind in ("CPU", "GPU")}
            left = _without(self._capacity(), {kind: amount * num_others for kind, amount in taken.items()})
            room = max(room, _how_many(left, known))
        return room

    def check_beside(
        self, stage: str, resources: WorkerResources, other: str, others: WorkerResources, num_others: int, why: str
    ) -> None:
        """Make sure that one worker has room while the workers of another stage are at work.

        Args:
            stage: The worker's.
            resources: The worker's.
            other: The other stage.
            others: What each of its workers holds.
            num_others: Their number.
            why: The setting that asks for both at once, with its value and what else it could be.

        Raises:
            ClusterError: it has not; says what each asks for.
        """
        if self.room_beside(resources, others, num_others):
            return
        asked = [
            f"{number} {name} worker(s) with "
            + ", ".join(f"cluster.{name}.{each.setting(k)}={_amount(k, v)}" for k, v in each.bundle().items())
            for name, each, number in ((stage, resources, 1), (other, others, num_others))
        ]
        total = self._capacity()
        kinds = dict.fromkeys([*resources.bundle(), *others.bundle()])
        has = ", ".join(_shown(kind, total.get(kind, 0.0)) for kind in kinds)
        raise ClusterError(
            f"There is no room for {asked[0]} beside {asked[1]}: the cluster has {has}. Lower what they ask for (a fraction "
            f"of a GPU can be shared), or change {why}."
        )

    def _room(self, resources: WorkerResources) -> int:
        bundle = resources.bundle()
        per_node = [_how_many(node["Resources"], bundle) for node in _nodes()]
        to_come = _how_many(self._to_come(bundle), bundle)
        if resources.placement == "STRICT_PACK":
            room = max([*per_node, to_come])
        elif resources.placement == "STRICT_SPREAD":
            room = sum(1 for count in per_node if count) + to_come
        else:
            room = sum(per_node) + to_come
        if self._autoscales:  # nobody tells a driver what the new nodes will have besides
            known = {kind: amount for kind, amount in bundle.items() if kind in ("CPU", "GPU")}
            room = max(room, _how_many(self._capacity(), known))
        return room

    @property
    def _autoscales(self) -> bool:
        return bool(self.config.max_cpus or self.config.max_gpus)

    def _capacity(self) -> dict[str, float]:
        """Return what work can be planned for: what there is, or the CPUs and GPUs that the autoscaler may add.

        Only the settings know the latter: open-source autoscalers do not tell a driver their limits.
        """
        total: dict[str, float] = {}
        for node in _nodes():
            for kind, amount in node["Resources"].items():
                total[kind] = total.get(kind, 0.0) + amount
        limits = {"CPU": self.config.max_cpus or 0, "GPU": self.config.max_gpus or 0}
        return {**total, **{kind: max(total.get(kind, 0.0), limit) for kind, limit in limits.items()}}

    def _to_come(self, *bundles: Mapping[str, float]) -> dict[str, float]:
        """Return what may be added under ``max_gpus`` alone, as one node; empty if nothing may.

        New GPU nodes bring CPUs of their own, and whatever else: of all but GPUs they have as much as is asked for.
        """
        gpus = (self.config.max_gpus or 0) - sum(node["Resources"].get("GPU", 0.0) for node in _nodes())
        if self.config.max_cpus or gpus <= 0:
            return {}
        return {**{kind: math.inf for bundle in bundles for kind in bundle}, "GPU": gpus}


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _how_many(available: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    number = min(available.get(kind, 0.0) / amount for kind, amount in bundle.items())
    if number == math.inf:  # work without a GPU, and nodes that come for GPUs
        return 0
    return max(0, int(number + 1e-9))


def _without(available: Mapping[str, float], bundle: Mapping[str, float]) -> dict[str, float]:
    return {kind: amount - bundle.get(kind, 0.0) for kind, amount in available.items()}


def _amount(kind: str, amount: float) -> str:
    return ByteSize(amount).human_readable() if kind == "memory" else f"{amount:g}"


def _shown(kind: str, amount: float) -> str:
    """Return an amount with its kind, as in "2 GPUs"."""
    if kind == "memory":
        return f"{_amount(kind, amount)} of memory"
    return f"{amount:g} {kind}s" if kind in ("CPU", "GPU") else f"{amount:g} of the custom resource {kind}"


def token_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to the environment, so that a local cluster has an authentication token.

    Ray keeps a token below the home directory, and fails where that cannot be written, as in many containers. The
    token then goes to a temporary directory that is this user's alone; it is removed when the process ends.
    """
    mode = environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token" or environ.get("RAY_AUTH_TOKEN") or environ.get("RAY_AUTH_TOKEN_PATH"):
        return {}  # chosen by the user
    home = environ.get("HOME")  # Ray looks nowhere else
    if home and _can_hold_token(Path(home)):
        return {}
    try:
        folder = Path(tempfile.mkdtemp(prefix="dfnas-ray-"))  # mode 0700
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder / "auth_token"
        path.write_text(secrets.token_hex(32))  # Ray itself writes only below the home directory
    except OSError:
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_TOKEN_PATH": str(path)}


def _can_hold_token(home: Path) -> bool:
    token = home / ".ray" / "auth_token"
    try:
        if token.exists() and token.stat().st_size:
            return os.access(token, os.R_OK)
        token.parent.mkdir(parents=True, exist_ok=True)
        return os.access(token if token.exists() else token.parent, os.W_OK)
    except OSError:
        return False


def worker_device(threads: int) -> torch.device:
    """Prepare the calling worker process: its number of threads, and the device that Ray gave it."""
    torch.set_num_threads(threads)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on a machine without a GPU it says so
    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")


def _join(address: str, **options: Any) -> None:
    """Join a cluster, again if need be: Ray Client's proxy forks beside its own threads, and loses about one server in
    fourteen (ray-project/ray#63202)."""

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None
        logger.warning(
            "Ray Client at %s did not start a server for this command (%s): trying again, attempt %d of %d.",
            address,
            _reason(state.outcome.exception()),
            state.attempt_number + 1,
            _JOIN_ATTEMPTS,
        )

    Retrying(
        retry=retry_if_exception_type(ConnectionAbortedError),
        stop=stop_after_attempt(_JOIN_ATTEMPTS),
        before_sleep=tell,
        reraise=True,
    )(ray.init, address=address, **options)


def _reason(error: BaseException | None) -> str:
    """What Ray says is wrong, in one line: the first of its message, or the last of the traceback that it encloses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return lines[-1 if any("Traceback" in line for line in lines) else 0].rstrip(".")


def _probe(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and port.isdigit():
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)):
            pass
