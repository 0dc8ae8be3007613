"""Ways to make images from a teacher: a config with ``kind`` each, and what it makes them with.

Add one: a package with both, and its line in `SYNTHESIZERS`, or an entry point in a package of your own.
"""

from __future__ import annotations

import torch

from dfnas_ray.config.registry import Family, is_built_in
from dfnas_ray.synthesis.base import Synthesizer, SynthesizerConfig
from dfnas_ray.synthesis.settings import SetSettings
from dfnas_ray.teachers.base import Teacher

SYNTHESIZERS: Family[SynthesizerConfig] = Family(
    "synthesizer",
    SynthesizerConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "inversion": "dfnas_ray.synthesis.inversion.synthesizer:InversionConfig",
        "generator": "dfnas_ray.synthesis.generator.synthesizer:GeneratorConfig",
    },
)
"""Every synthesizer by its kind."""


def make_synthesizer(
    config: SynthesizerConfig, teacher: Teacher, settings: SetSettings, device: torch.device
) -> Synthesizer:
    """Return what makes the images. One of another package has a teacher of its own: what it does to it stays there.

    Raises:
        SynthesisError: these images cannot be asked of this teacher.
    """
    return config.synthesizer(teacher if is_built_in(type(config)) else teacher.lent(), settings, device)
