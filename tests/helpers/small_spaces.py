"""Every search space of this package at a size for tests. A space that is not named here is tested at its defaults."""

from dfnas_ray.search_spaces import SPACES

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


def small_spaces():
    """Return the settings of every space."""
    return [SPACES.find(kind)(**SMALL.get(kind, {})) for kind in SPACES.built_in]
