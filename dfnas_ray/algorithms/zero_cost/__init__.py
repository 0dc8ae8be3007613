"""Training-free scores: what an untrained network promises, one module for each proxy.

Add one: a module with a pure function of an `UntrainedNetwork` and a `Proxy` that calls it, and its line in `proxies.PROXIES`,
or an entry point in a package of your own.
"""

from dfnas_ray.algorithms.zero_cost.proxies import PROXIES, Proxy
from dfnas_ray.algorithms.zero_cost.search import ZeroCost, ZeroCostConfig, ZeroCostScorer
from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork

__all__ = ["PROXIES", "Proxy", "UntrainedNetwork", "ZeroCost", "ZeroCostConfig", "ZeroCostScorer"]
