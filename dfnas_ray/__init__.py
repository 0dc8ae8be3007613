"""Data-free neural architecture search: from a trained classifier to a better network, without its training data.

    import dfnas_ray as dfnas

    teacher = dfnas.Teacher.from_model(model, image_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    images = dfnas.synthesize(teacher, num_images=1000)
    found = dfnas.search(teacher, images, space="nasbench201", algorithm="spos", max_macs="50%")
    student = dfnas.retrain(teacher, images, found.architecture)

or a whole experiment: ``dfnas.run(dfnas.load_experiment("experiments/digits.yaml"))``. The network that it found is
``dfnas.load_network("runs/digits")``.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from dfnas_ray.version import __version__

# torch asks for huge pages for large tensors on a CPU. With small ones, up to two thirds of the time for images of 224 pixels
# go into page faults. torch reads the variable once, when it first needs memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from dfnas_ray.config.experiment import ExperimentConfig, load_experiment, make_experiment
    from dfnas_ray.library import (
        Found,
        Images,
        TrainedNetwork,
        evaluate,
        load_images,
        load_network,
        retrain,
        run,
        search,
        synthesize,
    )
    from dfnas_ray.teachers.base import Teacher

_HOMES = {
    "ExperimentConfig": "dfnas_ray.config.experiment",
    "Found": "dfnas_ray.library",
    "Images": "dfnas_ray.library",
    "Teacher": "dfnas_ray.teachers.base",
    "TrainedNetwork": "dfnas_ray.library",
    "evaluate": "dfnas_ray.library",
    "load_experiment": "dfnas_ray.config.experiment",
    "load_images": "dfnas_ray.library",
    "load_network": "dfnas_ray.library",
    "make_experiment": "dfnas_ray.config.experiment",
    "retrain": "dfnas_ray.library",
    "run": "dfnas_ray.library",
    "search": "dfnas_ray.library",
    "synthesize": "dfnas_ray.library",
}

__all__ = [
    "ExperimentConfig",
    "Found",
    "Images",
    "Teacher",
    "TrainedNetwork",
    "__version__",
    "evaluate",
    "load_experiment",
    "load_images",
    "load_network",
    "make_experiment",
    "retrain",
    "run",
    "search",
    "synthesize",
]


def __getattr__(name: str) -> Any:  # so that torch is imported only when it is needed
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
