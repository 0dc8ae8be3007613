"""Every search space of this package keeps what all promise; a member added to the registry is tested by itself."""

from small_spaces import small_spaces

from dfnas_ray.algorithms.feature_stages import find_stages
from dfnas_ray.testing import SearchSpaceSuite


class TestSearchSpaces(SearchSpaceSuite):
    configs = small_spaces()

    def test_a_network_has_two_stages_at_least(self, space):
        assert len(find_stages(space.build(space.cheapest()), space.image_shape)) >= 2
