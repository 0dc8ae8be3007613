"""Training-free scores of untrained networks, with one module for each proxy.

To add one, write a module with a pure function of an `UntrainedNetwork`, and a `Proxy` that calls it. Then add its line
to `proxies.PROXIES`, or an entry point to your own package.
"""

from dfnas_ray.algorithms.zero_cost.proxies import PROXIES, Proxy
from dfnas_ray.algorithms.zero_cost.search import ZeroCost, ZeroCostConfig, ZeroCostScorer
from dfnas_ray.algorithms.zero_cost.untrained import UntrainedNetwork

__all__ = ["PROXIES", "Proxy", "UntrainedNetwork", "ZeroCost", "ZeroCostConfig", "ZeroCostScorer"]
