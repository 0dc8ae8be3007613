"""The contract of a zero-cost proxy, and the proxies of this package by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from dfnas_ray.algorithms.base import Measurement
from dfnas_ray.algorithms.zero_cost.az_nas import EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, az_nas, entropies
from dfnas_ray.algorithms.zero_cost.naswot import naswot
from dfnas_ray.algorithms.zero_cost.synflow import synflow
from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork
from dfnas_ray.algorithms.zero_cost.zico import zico
from dfnas_ray.config.registry import Family, describe, is_built_in
from dfnas_ray.errors import ConfigError


class Proxy(ABC):
    """A score of an untrained network.

    Attributes:
        kind: The name of the proxy in experiment files.
        figures: Names of its figures; for each, higher is better.
        looks_at: The input that the figures depend on: nothing, the probe (`UntrainedNetwork.probe`), or the images.
    """

    kind: ClassVar[str]
    figures: ClassVar[tuple[str, ...]]
    looks_at: ClassVar[Literal["nothing", "probe", "images"]] = "images"

    @abstractmethod
    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Return the figures by name. The network's parameters must not change."""


class Parameters(Proxy):
    """The number of parameters."""

    kind = "parameters"
    figures = ("parameters",)
    looks_at = "nothing"

    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Count them."""
        return {"parameters": float(candidate.cost.params)}


class Macs(Proxy):
    """The number of multiply-accumulates."""

    kind = "macs"
    figures = ("macs",)
    looks_at = "nothing"

    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Count them."""
        return {"macs": float(candidate.cost.macs)}


class SynFlow(Proxy):
    """See `synflow`."""

    kind = "synflow"
    figures = ("synflow",)
    looks_at = "nothing"

    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Measure the flow."""
        return {"synflow": synflow(candidate)}


class Naswot(Proxy):
    """See `naswot`."""

    kind = "naswot"
    figures = ("naswot",)

    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Compare the codes of images."""
        return {"naswot": naswot(candidate)}


class ZiCo(Proxy):
    """See `zico`."""

    kind = "zico"
    figures = ("zico",)

    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Compare the gradients of batches."""
        return {"zico": zico(candidate)}


class Expressivity(Proxy):
    """Only the first figure of AZ-NAS."""

    kind = "expressivity"
    figures = (EXPRESSIVITY,)
    looks_at = "probe"

    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Measure the entropy of features."""
        return {EXPRESSIVITY: entropies(candidate)[EXPRESSIVITY]}


class AzNas(Proxy):
    """See `az_nas`; its fourth figure is the number of MACs."""

    kind = "az_nas"
    figures = (EXPRESSIVITY, PROGRESSIVITY, TRAINABILITY, "macs")
    looks_at = "probe"

    def measure(self, candidate: UntrainedNetwork) -> Measurement:
        """Measure all four."""
        return {**az_nas(candidate), "macs": float(candidate.cost.macs)}


PROXIES: Family[Proxy] = Family(
    "zero-cost proxy",
    Proxy,  # type: ignore[type-abstract]  # only its members are made
    {
        "parameters": "dfnas_ray.algorithms.zero_cost.proxies:Parameters",
        "macs": "dfnas_ray.algorithms.zero_cost.proxies:Macs",
        "synflow": "dfnas_ray.algorithms.zero_cost.proxies:SynFlow",
        "naswot": "dfnas_ray.algorithms.zero_cost.proxies:Naswot",
        "zico": "dfnas_ray.algorithms.zero_cost.proxies:ZiCo",
        "az_nas": "dfnas_ray.algorithms.zero_cost.proxies:AzNas",
        "expressivity": "dfnas_ray.algorithms.zero_cost.proxies:Expressivity",
    },
    by_name=True,
)
"""Every proxy by its kind."""


def measure_proxy(name: str, candidate: UntrainedNetwork) -> Measurement:
    """Return the figures of a proxy.

    Raises:
        ConfigError: it comes from another package and does not return its figures; the message names package and rule.
    """
    proxy = PROXIES.find(name)
    measured: object = proxy().measure(candidate if is_built_in(proxy) else candidate.lent())
    if is_built_in(proxy) or (
        isinstance(measured, dict)
        and set(measured) == set(proxy.figures)
        and all(isinstance(value, int | float) for value in measured.values())
    ):
        return measured  # type: ignore[return-value]  # checked above, or our own
    raise ConfigError(
        f"The zero-cost proxy {describe(proxy)} breaks its contract: measure() must return a number for each of its figures "
        f"{list(proxy.figures)}, not {measured!r}."
    )
