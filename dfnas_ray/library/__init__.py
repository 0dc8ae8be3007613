"""The Python interface: run an experiment from its file, or one step on objects of your own.

`dfnas_ray` exports the same names, except `sweep`, `benchmark`, `compare`, `truth` and `export`, which are imported
from here.
"""

from dfnas_ray.library.experiments import benchmark, compare, report, run, sweep, truth
from dfnas_ray.library.exports import export, load_network
from dfnas_ray.library.images import Images, ImageSet, load_images
from dfnas_ray.library.networks import TrainedNetwork
from dfnas_ray.library.steps import Found, evaluate, retrain, search, synthesize

__all__ = [
    "Found",
    "ImageSet",
    "Images",
    "TrainedNetwork",
    "benchmark",
    "compare",
    "evaluate",
    "export",
    "load_images",
    "load_network",
    "report",
    "retrain",
    "run",
    "search",
    "sweep",
    "synthesize",
    "truth",
]
