"""Search spaces: what can be searched, and what each architecture costs.

Add one: a module with a config that has ``kind`` and ``space(image_shape, num_classes) -> SearchSpace``, and one line in
the union. ``tests/conformance`` picks it up by itself.
"""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter

from dfnas_ray.search_spaces.base import Edge, Genotype, Layer, SearchSpace, SpaceConfig, Supernet
from dfnas_ray.search_spaces.darts import DartsConfig
from dfnas_ray.search_spaces.nasbench201 import NASBench201Config
from dfnas_ray.search_spaces.nasbench_macro import NASBenchMacroConfig
from dfnas_ray.search_spaces.proxyless import ProxylessConfig
from dfnas_ray.search_spaces.shufflenet import ShuffleNetConfig

SearchSpaceConfig = Annotated[
    DartsConfig | NASBench201Config | NASBenchMacroConfig | ProxylessConfig | ShuffleNetConfig,
    Field(discriminator="kind"),
]

SPACE_CONFIGS: dict[str, type[SpaceConfig]] = {
    member.model_fields["kind"].default: member for member in get_args(get_args(SearchSpaceConfig)[0])
}
"""Every space's settings by its kind."""

_ADAPTER: TypeAdapter[Any] = TypeAdapter(SearchSpaceConfig)


def make_space(config: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
    """Return a space from its settings as a run directory records them.

    Raises:
        pydantic.ValidationError: they are not those of a space known here.
    """
    space: SearchSpace = _ADAPTER.validate_python(config).space(image_shape, num_classes)
    return space


__all__ = [
    "SPACE_CONFIGS",
    "DartsConfig",
    "Edge",
    "Genotype",
    "Layer",
    "NASBench201Config",
    "NASBenchMacroConfig",
    "ProxylessConfig",
    "SearchSpace",
    "SearchSpaceConfig",
    "ShuffleNetConfig",
    "SpaceConfig",
    "Supernet",
    "make_space",
]
