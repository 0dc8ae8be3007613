"""Search algorithms. They do not know which process or cluster runs them.

To add one, write a module with a `BaseAlgorithmConfig` that has ``kind``, ``batch_size``, ``steps_to_show`` and
``algorithm(problem) -> SearchAlgorithm``. Then add its line to `config.ALGORITHMS`, or an entry point to your own
package. ``tests/conformance`` picks up the members of `config.ALGORITHMS` by itself.
"""

from dfnas_ray.algorithms.alignment import AlignmentConfig
from dfnas_ray.algorithms.base import BaseAlgorithmConfig, SearchAlgorithm, SearchProblem, SearchState
from dfnas_ray.algorithms.config import ALGORITHMS, SearchConfig
from dfnas_ray.algorithms.darts import DartsSearchConfig
from dfnas_ray.algorithms.evolution import Evolution, EvolutionConfig
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig
from dfnas_ray.algorithms.proxyless import ProxylessSearchConfig
from dfnas_ray.algorithms.random_search import RandomSearchConfig
from dfnas_ray.algorithms.spos import SposConfig
from dfnas_ray.algorithms.zero_cost import ZeroCostConfig

__all__ = [
    "ALGORITHMS",
    "AlignmentConfig",
    "BaseAlgorithmConfig",
    "DartsSearchConfig",
    "Evolution",
    "EvolutionConfig",
    "MultiFidelityConfig",
    "ProxylessSearchConfig",
    "RandomSearchConfig",
    "SearchAlgorithm",
    "SearchConfig",
    "SearchProblem",
    "SearchState",
    "SposConfig",
    "ZeroCostConfig",
]
