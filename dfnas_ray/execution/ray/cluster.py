"""The size of a cluster, and the workers that it has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ray
from pydantic import ByteSize

from dfnas_ray.config.cluster import ClusterConfig, WorkerResources
from dfnas_ray.errors import ClusterError

_WORKERS_SETTING = {  # per stage: the setting of its number of workers, and how many there are besides
    "synthesis": ("cluster.synthesis.actors", 0),
    "search": ("cluster.search.scoring_workers", 1),
    "retraining": ("retraining.num_workers", 0),
}


class ClusterSize:
    """The nodes of the cluster that this process is connected to, and the size to which the settings let it grow."""

    def __init__(self, config: ClusterConfig):
        self.config = config

    def check_fits(self, stage: str, resources: WorkerResources, workers: int = 1) -> None:
        """Make sure that the cluster can ever hold ``workers`` workers at once.

        Raises:
            ClusterError: it cannot. The message says what the cluster has, and which settings ask for more. An
                autoscaling cluster counts with the size to which the settings let it grow.
        """
        room = self._room(resources)
        if workers <= room:
            return
        bundle, total = resources.bundle(), self._capacity()
        if "GPU" in bundle:
            total = {**total, **{k: max(total.get(k, 0.0), amount) for k, amount in self._growth(bundle).items()}}
        short = [kind for kind in ("GPU", "CPU", *bundle) if bundle.get(kind, 0) * workers > total.get(kind, 0.0)]
        if not short:  # enough in all, but not on one node
            largest = max((node["Resources"] for node in _nodes()), key=lambda node: node.get("CPU", 0.0))
            asked = self.described(stage, resources)
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

    def facts(self) -> dict[str, str | int | float]:
        """Return the cluster's size and Ray's version."""
        total = ray.cluster_resources()
        return {
            "ray": ray.__version__,
            "nodes": len(_nodes()),
            "cpus": total.get("CPU", 0.0),
            "gpus": total.get("GPU", 0.0),
        }

    def has_node_for(self, resources: WorkerResources) -> bool:
        """Return whether a node of the cluster, as it is now, is large enough for one worker."""
        return any(_how_many(node["Resources"], resources.bundle()) for node in _nodes())

    def described(self, stage: str, resources: WorkerResources) -> str:
        """Return what a worker of a stage asks for, as settings with their values."""
        amounts = resources.bundle().items()
        return ", ".join(
            f"cluster.{stage}.{resources.setting(kind)}={_amount(kind, amount)}" for kind, amount in amounts
        )

    def room_for(self, resources: WorkerResources) -> int:
        """Return how many workers of this size the cluster holds, or may grow to hold; at least one.

        Each worker is placed by itself: a strict placement binds only workers that start together.
        """
        return max(1, self._room(resources.model_copy(update={"placement": "PACK"})))

    def room_beside(self, resources: WorkerResources, others: WorkerResources, num_others: int) -> int:
        """Return how many workers of this size have room while ``num_others`` workers of another size run."""
        bundle, taken = resources.bundle(), others.bundle()
        nodes: list[dict[str, float]] = [dict(node["Resources"]) for node in _nodes()]
        nodes.append(self._growth(bundle, taken))
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
        """Make sure that one worker has room while the workers of another stage run.

        Args:
            stage: The stage of the worker.
            resources: The resources of the worker.
            other: The other stage.
            others: The resources of each of its workers.
            num_others: The number of these workers.
            why: The setting that asks for both at once, with its value and an alternative.

        Raises:
            ClusterError: it has no room. The message says what each worker asks for.
        """
        if self.room_beside(resources, others, num_others):
            return
        asked = [
            f"{number} {name} worker(s) with {self.described(name, each)}"
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
        to_come = _how_many(self._growth(bundle), bundle)
        if resources.placement == "STRICT_PACK":
            room = max([*per_node, to_come])
        elif resources.placement == "STRICT_SPREAD":
            room = sum(1 for count in per_node if count) + to_come
        else:
            room = sum(per_node) + to_come
        if self._autoscales:  # a driver cannot know what else new nodes will have
            known = {kind: amount for kind, amount in bundle.items() if kind in ("CPU", "GPU")}
            room = max(room, _how_many(self._capacity(), known))
        return room

    @property
    def _autoscales(self) -> bool:
        return bool(self.config.max_cpus or self.config.max_gpus)

    def _capacity(self) -> dict[str, float]:
        """Return the resources to plan with: those that exist, or the CPUs and GPUs to which the cluster may grow.

        Only the settings know the latter: open-source autoscalers do not tell a driver their limits.
        """
        total: dict[str, float] = {}
        for node in _nodes():
            for kind, amount in node["Resources"].items():
                total[kind] = total.get(kind, 0.0) + amount
        limits = {"CPU": self.config.max_cpus or 0, "GPU": self.config.max_gpus or 0}
        return {**total, **{kind: max(total.get(kind, 0.0), limit) for kind, limit in limits.items()}}

    def _growth(self, *bundles: Mapping[str, float]) -> dict[str, float]:
        """Return the resources that may be added if only ``max_gpus`` is set, as one node; empty if none may.

        New GPU nodes bring CPUs and other resources of their own, so everything but GPUs counts as unlimited.
        """
        gpus = (self.config.max_gpus or 0) - sum(node["Resources"].get("GPU", 0.0) for node in _nodes())
        if self.config.max_cpus or gpus <= 0:
            return {}
        return {**{kind: math.inf for bundle in bundles for kind in bundle}, "GPU": gpus}


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _how_many(available: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    number = min(available.get(kind, 0.0) / amount for kind, amount in bundle.items())
    if number == math.inf:  # work without a GPU does not count on nodes that come for GPUs
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
