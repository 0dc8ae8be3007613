"""Search algorithms, with no idea of who runs them."""

from dfnas_ray.algorithms.base import SearchAlgorithm, SearchState
from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.algorithms.evolution import Evolution, EvolutionConfig
from dfnas_ray.algorithms.spos import SposConfig

__all__ = ["Evolution", "EvolutionConfig", "SearchAlgorithm", "SearchConfig", "SearchState", "SposConfig"]
