"""The sources of images for a search or a retraining: synthesis, noise, or real images for comparison.

To add one, write a module with a `DrawnSource` that has ``kind`` and ``drawer(...)``. Then add a line for it to
`SOURCES`, or an entry point in a package of your own. The images that a source draws become ordinary shards, which the
teacher labels. Later stages do not see where they come from.
"""

from typing import Annotated

from dfnas_ray.config.registry import Family
from dfnas_ray.sources.base import SourceConfig
from dfnas_ray.sources.synthetic import SyntheticSource

SOURCES: Family[SourceConfig] = Family(
    "source of images",
    SourceConfig,
    {
        "synthetic": "dfnas_ray.sources.synthetic:SyntheticSource",
        "noise": "dfnas_ray.sources.noise:NoiseSource",
        "real": "dfnas_ray.sources.real:RealSource",
    },
)
"""Every source of images by its kind."""

ImagesConfig = Annotated[SourceConfig, SOURCES]

__all__ = ["SOURCES", "ImagesConfig", "SourceConfig", "SyntheticSource"]
