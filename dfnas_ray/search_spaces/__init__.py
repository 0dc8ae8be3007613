"""Search spaces: the sets of architectures that can be searched, and the cost of each architecture.

To add one, write a module with a config that has ``kind`` and ``space(image_shape, num_classes) -> SearchSpace``. Then
add its line to `SPACES`, or an entry point to your own package. ``tests/conformance`` picks up the members of `SPACES`
by itself.
"""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ValidationError

from dfnas_ray.config.explain import explain
from dfnas_ray.config.registry import Family
from dfnas_ray.errors import ConfigError, shortened
from dfnas_ray.search_spaces.base import Edge, Genotype, Layer, SearchSpace, SpaceConfig, Supernet
from dfnas_ray.search_spaces.contract import build_space
from dfnas_ray.search_spaces.darts import DartsSpaceConfig
from dfnas_ray.search_spaces.nasbench201 import NASBench201Config
from dfnas_ray.search_spaces.nasbench_macro import NASBenchMacroConfig
from dfnas_ray.search_spaces.proxyless import ProxylessSpaceConfig
from dfnas_ray.search_spaces.shufflenet import ShuffleNetConfig

SPACES: Family[SpaceConfig] = Family(
    "search space",
    SpaceConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "darts": "dfnas_ray.search_spaces.darts:DartsSpaceConfig",
        "nasbench201": "dfnas_ray.search_spaces.nasbench201:NASBench201Config",
        "nasbench_macro": "dfnas_ray.search_spaces.nasbench_macro:NASBenchMacroConfig",
        "proxyless": "dfnas_ray.search_spaces.proxyless:ProxylessSpaceConfig",
        "shufflenet": "dfnas_ray.search_spaces.shufflenet:ShuffleNetConfig",
    },
)
"""Every search space by its kind."""

SearchSpaceConfig = Annotated[SpaceConfig, SPACES]


def make_space(config: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
    """Return a space from its settings as they are recorded in a run directory.

    A record imports no code. Code from another package must be named by the experiment.

    Raises:
        ConfigError: the space is unknown, the settings do not fit it, or it breaks its contract.
    """
    kind = config.get("kind")
    if isinstance(kind, str) and ":" in kind and kind.partition(":")[0] not in sys.modules:
        raise ConfigError(
            f"A recorded search space is of the kind {shortened(kind, 100)}. That is code to be imported, and records are not "
            "trusted to import code. Name the space in search.space of the experiment."
        )
    try:
        space = SPACES.validate(config)
    except ValueError as error:
        code = SPACES.class_of(config)
        reason = explain(error, config, code) if isinstance(error, ValidationError) and code else str(error)
        raise ConfigError(
            f"The recorded settings of a search space cannot be used: {' '.join(reason.split())}"
        ) from error
    return build_space(space, image_shape, num_classes)


__all__ = [
    "SPACES",
    "DartsSpaceConfig",
    "Edge",
    "Genotype",
    "Layer",
    "NASBench201Config",
    "NASBenchMacroConfig",
    "ProxylessSpaceConfig",
    "SearchSpace",
    "SearchSpaceConfig",
    "ShuffleNetConfig",
    "SpaceConfig",
    "Supernet",
    "build_space",
    "make_space",
]
