"""What other programmes call: an experiment from its file, or one step on objects of their own.

`dfnas_ray` itself has the same names, but for `sweep` and `benchmark`: these two are imported from here.
"""

from dfnas_ray.library.experiments import benchmark, report, run, sweep
from dfnas_ray.library.images import Images
from dfnas_ray.library.networks import TrainedNetwork
from dfnas_ray.library.steps import Found, evaluate, retrain, search, synthesize

__all__ = [
    "Found",
    "Images",
    "TrainedNetwork",
    "benchmark",
    "evaluate",
    "report",
    "retrain",
    "run",
    "search",
    "sweep",
    "synthesize",
]
