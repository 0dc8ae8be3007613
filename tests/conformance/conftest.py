"""Every search space at a size for tests. A space that is not named here is tested at its default size."""

from __future__ import annotations

import pytest

from dfnas_ray.seeding import fixed_threads

SMALL = {
    "darts": {"channels": 4, "layers": 3, "search_channels": 4, "search_layers": 3},
    "nasbench201": {"channels": 4, "cells_per_stage": 1},
    "nasbench_macro": {"stem_channels": 4, "stage_layers": (1, 1), "stage_channels": (8, 16), "head_channels": 16},
    "proxyless": {
        "form": "cifar",
        "stem_channels": 4,
        "first_channels": 4,
        "stage_layers": (2, 1),
        "stage_channels": (8, 16),
        "stage_strides": (2, 2),
        "head_channels": 16,
    },
    "shufflenet": {
        "form": "cifar",
        "stem_channels": 4,
        "stage_layers": (2, 1),
        "stage_channels": (8, 16),
        "head_channels": 16,
    },
}


def kind_of(config):
    return config.model_fields["kind"].default


def pytest_generate_tests(metafunc):
    """Give every test that asks for them all spaces, or all pairs of algorithm and space that make sense."""
    from dfnas_ray.algorithms.config import ALGORITHMS
    from dfnas_ray.search_spaces import SPACES

    spaces = [SPACES.find(kind) for kind in SPACES.built_in]
    if "pair" in metafunc.fixturenames:
        pairs = [
            pytest.param((algorithm, space), id=f"{kind_of(algorithm)}-{kind_of(space)}")
            for algorithm in map(ALGORITHMS.find, ALGORITHMS.built_in)
            for space in spaces
            if kind_of(space) not in algorithm.unsuitable_spaces
        ]
        metafunc.parametrize("pair", pairs)
    elif "space" in metafunc.fixturenames:
        shapes = (((1, 16, 16), 10), ((3, 33, 32), 7))  # one side is odd on purpose
        cases = [
            pytest.param((config, shape, classes), id=f"{kind_of(config)}-{shape[0]}x{shape[1]}x{shape[2]}")
            for config in spaces
            for shape, classes in shapes
        ]
        metafunc.parametrize("space", cases, indirect=True)


_built = {}


@pytest.fixture
def space(request):
    """One space in its small form. Read only: it is shared, for its table of costs."""
    config, shape, classes = request.param
    if request.param not in _built:
        _built[request.param] = config(**SMALL.get(kind_of(config), {})).space(shape, classes)
    return _built[request.param]


@pytest.fixture(autouse=True)
def _one_thread():
    with fixed_threads(1):
        yield
