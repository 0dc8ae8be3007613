"""The proxies by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from dfnas_ray.algorithms.base import Measurement
from dfnas_ray.algorithms.zero_cost.az_nas import EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, az_nas, entropies
from dfnas_ray.algorithms.zero_cost.naswot import naswot
from dfnas_ray.algorithms.zero_cost.synflow import synflow
from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork
from dfnas_ray.algorithms.zero_cost.zico import zico

ProxyName = Literal["parameters", "macs", "synflow", "naswot", "zico", "az_nas", "expressivity"]


class Proxy(NamedTuple):
    """One proxy.

    Attributes:
        figures: Names of what it measures; for each, higher is better.
        measure: Returns the figures.
        looks_at: What they depend on, beside the network.
    """

    figures: tuple[str, ...]
    measure: Callable[[UntrainedNetwork], Measurement]
    looks_at: Literal["nothing", "probe", "images"]


PROXIES: dict[ProxyName, Proxy] = {
    "parameters": Proxy(("parameters",), lambda c: {"parameters": float(c.cost.params)}, "nothing"),
    "macs": Proxy(("macs",), lambda c: {"macs": float(c.cost.macs)}, "nothing"),
    "synflow": Proxy(("synflow",), lambda c: {"synflow": synflow(c)}, "nothing"),
    "naswot": Proxy(("naswot",), lambda c: {"naswot": naswot(c)}, "images"),
    "zico": Proxy(("zico",), lambda c: {"zico": zico(c)}, "images"),
    "expressivity": Proxy((EXPRESSIVITY,), lambda c: {EXPRESSIVITY: entropies(c)[EXPRESSIVITY]}, "probe"),
    "az_nas": Proxy(
        (EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, "macs"),
        lambda c: {**az_nas(c), "macs": float(c.cost.macs)},
        "probe",
    ),
}
