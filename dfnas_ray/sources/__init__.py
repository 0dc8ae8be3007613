"""Where the images of a search or a retraining come from: synthesis, noise, or real images to compare with.

Add one: a module with a `DrawnSource` that has ``kind`` and ``drawer(...)``, and its line in `SOURCES`, or an entry point in a
package of your own. What a source draws becomes ordinary shards, which the teacher labels: nothing downstream knows it.
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
