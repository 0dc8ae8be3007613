"""Every search algorithm of this package keeps what all promise, in every space of this package that it can search."""

from small_spaces import small_spaces

from dfnas_ray.algorithms.config import ALGORITHMS
from dfnas_ray.testing import AlgorithmSuite

EVOLUTION = {"generations": 2, "population": 4, "parents": 2, "mutations": 2, "crossovers": 1}
SHORT = {
    "alignment": {"candidates": 6, "initial": 2, "round_size": 2, "steps": 1, "batches": 1, "validation_batches": 1}
    | {"batch_size": 16, "surrogate": {"trees": 5, "pool": 20}},
    "darts": {"epochs": 2, "batch_size": 16, "collapse": {"eigenvalue": False}},
    "multi_fidelity": {"candidates": 3, "max_epochs": 2, "reduction_factor": 2, "batch_size": 16},
    "proxyless": {"epochs": 3, "warmup_epochs": 1, "batch_size": 16},
    "random_search": {"candidates": 3, "round_size": 1, "epochs": 1, "batch_size": 16},
    "zero_cost": {"proxies": ("synflow", "zico", "az_nas"), "batch_size": 8, "evolution": EVOLUTION},
    "borda": {
        "supernets": 2,
        "epochs": 1,
        "batch_size": 16,
        "calibration_batches": 1,
        "proxies": ("synflow", "naswot"),
        "evolution": EVOLUTION,
    },
    "spos": {"epochs": 2, "batch_size": 16, "calibration_batches": 2, "evolution": EVOLUTION},
}


class TestAlgorithms(AlgorithmSuite):
    configs = [ALGORITHMS.find(kind)(**SHORT.get(kind, {})) for kind in ALGORITHMS.built_in]  # noqa: RUF012
    spaces = small_spaces()
