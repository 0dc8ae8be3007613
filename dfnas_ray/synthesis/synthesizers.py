"""Ways to make images from a teacher: a config with ``kind`` each, and what it makes them with.

Add one: a package with both, and its line in `SYNTHESIZERS`, or an entry point in a package of your own.
"""

from __future__ import annotations

from dfnas_ray.config.registry import Family
from dfnas_ray.synthesis.base import SynthesizerConfig

SYNTHESIZERS: Family[SynthesizerConfig] = Family(
    "synthesizer",
    SynthesizerConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "inversion": "dfnas_ray.synthesis.inversion.synthesizer:InversionConfig",
        "generator": "dfnas_ray.synthesis.generator.synthesizer:GeneratorConfig",
    },
)
"""Every synthesizer by its kind."""
