"""Data-free neural architecture search on Ray.

    from dfnas_ray import load_experiment, run
    outcomes = run(load_experiment("experiments/digits.yaml"))

The stages can be called one by one: `synthesize`, `search`, `retrain`, `evaluate`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfnas_ray.config.experiment import ExperimentConfig, load_experiment, make_experiment
    from dfnas_ray.library import run

__version__ = "0.1.0"

__all__ = [
    "ExperimentConfig",
    "load_experiment",
    "make_experiment",
    "run",
]

_EXPERIMENT = ("ExperimentConfig", "load_experiment", "make_experiment")


def __getattr__(name: str) -> Any:  # torch and Ray are imported when they are first needed
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "dfnas_ray.config.experiment" if name in _EXPERIMENT else "dfnas_ray.library"
    return getattr(importlib.import_module(module), name)
