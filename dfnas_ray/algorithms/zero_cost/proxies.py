"""The proxies by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from dfnas_ray.algorithms.base import Measurement
from dfnas_ray.algorithms.zero_cost.az_nas import EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, az_nas, entropies
from dfnas_ray.algorithms.zero_cost.candidate import Candidate
from dfnas_ray.algorithms.zero_cost.naswot import naswot
from dfnas_ray.algorithms.zero_cost.synflow import synflow
from dfnas_ray.algorithms.zero_cost.zico import zico

ProxyName = Literal["parameters", "macs", "synflow", "naswot", "zico", "az_nas", "expressivity"]


class Proxy(NamedTuple):
    """One proxy.

    Attributes:
        figures: Names of what it measures; for each, higher is better.
        measure: Returns the figures.
        needs_images: Whether they depend on the images.
    """

    figures: tuple[str, ...]
    measure: Callable[[Candidate], Measurement]
    needs_images: bool


PROXIES: dict[ProxyName, Proxy] = {
    "parameters": Proxy(("parameters",), lambda c: {"parameters": float(c.cost.params)}, False),
    "macs": Proxy(("macs",), lambda c: {"macs": float(c.cost.macs)}, False),
    "synflow": Proxy(("synflow",), lambda c: {"synflow": synflow(c)}, False),
    "naswot": Proxy(("naswot",), lambda c: {"naswot": naswot(c)}, True),
    "zico": Proxy(("zico",), lambda c: {"zico": zico(c)}, True),
    "expressivity": Proxy((EXPRESSIVITY,), lambda c: {EXPRESSIVITY: entropies(c)[EXPRESSIVITY]}, True),
    "az_nas": Proxy(
        (EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, "macs"), lambda c: {**az_nas(c), "macs": float(c.cost.macs)}, True
    ),
}
