"""The synthesizers, which make images from a teacher: each one is a config with a ``kind``, and a `Synthesizer`.

To add one, write a package with both. Then add a line for it to `SYNTHESIZERS`, or an entry point in a package of your
own.
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
    """Return the synthesizer that makes the images.

    A synthesizer of another package gets a copy of the teacher, so that its changes affect nothing else.

    Raises:
        SynthesisError: this teacher cannot make these images.
    """
    return config.synthesizer(teacher if is_built_in(type(config)) else teacher.lent(), settings, device)
