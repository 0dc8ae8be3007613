"""Search algorithms, with no idea of who runs them.

Add one: a module with a `BaseAlgorithmConfig` that has ``kind``, ``batch_size``, ``steps_to_show`` and
``algorithm(problem) -> SearchAlgorithm``, and one line in the union of `config`.
``tests/conformance`` picks it up by itself.
"""

from dfnas_ray.algorithms.alignment import AlignmentConfig
from dfnas_ray.algorithms.base import BaseAlgorithmConfig, SearchAlgorithm, SearchProblem, SearchState
from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.algorithms.darts import DartsConfig
from dfnas_ray.algorithms.evolution import Evolution, EvolutionConfig
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig
from dfnas_ray.algorithms.proxyless import ProxylessConfig
from dfnas_ray.algorithms.random_search import RandomSearchConfig
from dfnas_ray.algorithms.spos import SposConfig
from dfnas_ray.algorithms.zero_cost import ZeroCostConfig

__all__ = [
    "AlignmentConfig",
    "BaseAlgorithmConfig",
    "DartsConfig",
    "Evolution",
    "EvolutionConfig",
    "MultiFidelityConfig",
    "ProxylessConfig",
    "RandomSearchConfig",
    "SearchAlgorithm",
    "SearchConfig",
    "SearchProblem",
    "SearchState",
    "SposConfig",
    "ZeroCostConfig",
]
