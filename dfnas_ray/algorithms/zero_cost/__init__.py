"""Training-free scores: what an untrained network promises, one module for each proxy.

Add one: a module with a pure function of a `UntrainedNetwork`, and one line in `proxies.PROXIES`.
"""

from dfnas_ray.algorithms.zero_cost.search import ZeroCost, ZeroCostConfig, ZeroCostScorer

__all__ = ["ZeroCost", "ZeroCostConfig", "ZeroCostScorer"]
