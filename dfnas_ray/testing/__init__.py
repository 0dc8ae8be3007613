"""Conformance suites: pytest classes that test what every plug-in of a type guarantees, for plug-ins of any package.

    from dfnas_ray.testing import SearchSpaceSuite

    class TestTinySpace(SearchSpaceSuite):
        config = TinySpaceConfig()

``configs = [...]`` tests several settings. A fixture ``config`` can make settings that need files. Proxies and
objectives have no settings: their suites take the class as ``proxy`` and ``objective``. The suites need pytest, which
this package does not install.
"""

import pytest

_MODULES = (
    "algorithms",
    "datasets",
    "member",
    "proxies",
    "regularizers",
    "search_spaces",
    "sweeps",
    "synthesizers",
    "teachers",
)
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from dfnas_ray.testing.algorithms import AlgorithmSuite  # noqa: E402 - after its asserts can be rewritten
from dfnas_ray.testing.datasets import DatasetSuite  # noqa: E402
from dfnas_ray.testing.member import ConfigSuite, MemberSuite  # noqa: E402
from dfnas_ray.testing.proxies import ProxySuite  # noqa: E402
from dfnas_ray.testing.regularizers import RegularizerSuite  # noqa: E402
from dfnas_ray.testing.search_spaces import SearchSpaceSuite  # noqa: E402
from dfnas_ray.testing.sweeps import ObjectiveSuite, SamplerSuite  # noqa: E402
from dfnas_ray.testing.synthesizers import SynthesizerSuite  # noqa: E402
from dfnas_ray.testing.teachers import TeacherSuite  # noqa: E402

__all__ = [
    "AlgorithmSuite",
    "ConfigSuite",
    "DatasetSuite",
    "MemberSuite",
    "ObjectiveSuite",
    "ProxySuite",
    "RegularizerSuite",
    "SamplerSuite",
    "SearchSpaceSuite",
    "SynthesizerSuite",
    "TeacherSuite",
]
