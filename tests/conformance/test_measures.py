"""Every zero-cost proxy, sweep objective and sampler of this package keeps what all promise."""

from dfnas_ray.algorithms.zero_cost.proxies import PROXIES
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.sweeps.sampler_configs import SAMPLERS
from dfnas_ray.testing import ObjectiveSuite, ProxySuite, SamplerSuite


class TestProxies(ProxySuite):
    proxies = [PROXIES.find(kind) for kind in PROXIES.built_in]  # noqa: RUF012


class TestObjectives(ObjectiveSuite):
    objectives = [OBJECTIVES.find(kind) for kind in OBJECTIVES.built_in]  # noqa: RUF012


class TestSamplers(SamplerSuite):
    configs = [SAMPLERS.find(kind)() for kind in SAMPLERS.built_in]  # noqa: RUF012
