"""Search spaces: what can be searched, and what each architecture costs.

Add one: a module with a config that has ``kind`` and ``space(image_shape, num_classes) -> SearchSpace``, and one line in
the union. ``tests/conformance`` picks it up by itself.
"""

from dfnas_ray.search_spaces.base import Genotype, Layer, SearchSpace, Supernet
from dfnas_ray.search_spaces.nasbench_macro import NASBenchMacroConfig

SearchSpaceConfig = NASBenchMacroConfig  # the first of a union by ``kind``

__all__ = ["Genotype", "Layer", "NASBenchMacroConfig", "SearchSpace", "SearchSpaceConfig", "Supernet"]
