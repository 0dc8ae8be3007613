"""Whether time and memory grow at most linearly: the same work in two or three sizes, each in a process of its own.

    python -m tests.benchmarks.growth
    python -m tests.benchmarks.growth --only "shards" "trials" --repeats 3

Time is the processor's, on one thread, without imports. "Memory" is the largest that the process had for itself (``RssAnon``)
above what it had before the work. "Grows" is the ratio to the row before; at most linear is at most the ratio of the sizes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

import dfnas_ray as dfnas
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.library import sweep
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.search_spaces.architecture import Architecture
from tests.benchmarks.memory import Peak, small_teacher

SIDE = 16
SPACE = {
    "kind": "nasbench_macro",
    "stem_channels": 4,
    "stage_layers": [2, 2, 2],
    "stage_channels": [4, 8, 8],
    "head_channels": 16,
}
INVERSION = {"kind": "inversion", "rounds": 2, "scales": [{"scale": 1, "steps": 4}], "warmup_steps": 1}
SYNTHESIS = {"canvas_margin": 0, "flip_probability": 0, "compile": False, "precision": "float32"}
TRAINING = {"batch_size": 32, "epochs": 1}


class Case(NamedTuple):
    """One kind of growth.

    Attributes:
        what: What grows.
        sizes: The sizes, from small to large.
        prepare: Makes what the work needs, not measured.
        work: The work, of what was prepared and a size.
    """

    what: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], object]
    work: Callable[[object, int], object]


def inversion(classes: int, images: int, shards: int = 1) -> dfnas.Images:
    """Make images by a few steps, and measure their quality."""
    method = {**INVERSION, "batch_size": min(100, images)}
    return dfnas.synthesize(
        small_teacher(SIDE, classes), num_shards=shards, images_per_shard=images, method=method, **SYNTHESIS
    )


def generator(images: int) -> dfnas.Images:
    """Make images with a generator that takes one adaptation step for each batch."""
    method = {"kind": "generator", "batch_size": 100, "adaptation_steps": 1, "streams": 1, "student": None}
    regularizers = {"bn_statistics": {"weight": 1.0}}
    return dfnas.synthesize(
        small_teacher(SIDE, 10),
        num_shards=1,
        images_per_shard=images,
        method=method,
        regularizers=regularizers,
        **SYNTHESIS,
    )


def zero_cost(images: dfnas.Images, candidates: int) -> object:
    """Score candidates without training."""
    algorithm = {"kind": "zero_cost", "proxies": ["naswot"], "evolution": {"generations": 1, "population": candidates}}
    return dfnas.search(
        images.teacher, images, space=SPACE, algorithm=algorithm, seeds=[0], max_macs=None, selection=TRAINING
    )


def spos(images: dfnas.Images, epochs: int) -> object:
    """Train a supernet with one path."""
    evolution = {"generations": 1, "population": 4, "parents": 2, "mutations": 2, "crossovers": 1}
    algorithm = {"kind": "spos", "epochs": epochs, "batch_size": 32, "calibration_batches": 1, "evolution": evolution}
    return dfnas.search(
        images.teacher, images, space=SPACE, algorithm=algorithm, seeds=[0], max_macs=None, selection=TRAINING
    )


def retrain(images: dfnas.Images, epochs: int) -> object:
    """Retrain the cheapest architecture."""
    space = NASBenchMacroConfig(**SPACE).space(images.teacher.image_shape, images.teacher.num_classes)
    return dfnas.retrain(
        images.teacher, images, Architecture(SPACE, space, space.cheapest()), **{**TRAINING, "epochs": epochs}
    )


def trials(_: object, number: int) -> object:
    """Sweep over one coefficient."""
    weight = "synthesis.regularizers.bn_statistics.weight"
    with tempfile.TemporaryDirectory() as folder:
        return sweep(
            make_experiment(
                {
                    "name": "growth",
                    "run_dir": folder,
                    "teacher": {"kind": "digits", "width": 4, "epochs": 1},
                    "synthesis": {
                        **SYNTHESIS,
                        "num_shards": 1,
                        "images_per_shard": 20,
                        "method": {**INVERSION, "batch_size": 20},
                    },
                    "search": {"space": SPACE},
                    "sweep": {
                        "settings": {weight: {"log_uniform": [0.03, 30]}},
                        "trials": number,
                        "student": {"steps": 2, "batch_size": 16},
                        "reference": {"settings": 2, "images": 20},
                    },
                    "cluster": {"address": "inline"},
                }
            )
        )


CASES = (
    Case("images, inversion", (1000, 2000, 4000), lambda n: None, lambda _, n: inversion(10, n)),
    Case("images, generator", (1000, 2000, 4000), lambda n: None, lambda _, n: generator(n)),
    Case("images, retraining", (1000, 2000, 4000), lambda n: inversion(10, n), lambda images, n: retrain(images, 1)),
    Case("classes, inversion", (100, 1000, 10000), lambda n: None, lambda _, n: inversion(n, 200)),
    Case("classes, retraining", (100, 1000, 10000), lambda n: inversion(n, 200), lambda images, n: retrain(images, 1)),
    Case("shards, inversion", (10, 100, 1000), lambda n: None, lambda _, n: inversion(10, 4, shards=n)),
    Case(
        "shards, retraining",
        (10, 100, 1000),
        lambda n: inversion(10, 4, shards=n),
        lambda images, n: retrain(images, 1),
    ),
    Case("trials of a sweep", (5, 50, 500), lambda n: None, trials),
    Case("candidates, zero-cost", (10, 100, 700), lambda n: inversion(10, 100), zero_cost),
    Case("epochs, supernet", (5, 50, 500), lambda n: inversion(10, 100), spos),
    Case("epochs, retraining", (5, 50, 500), lambda n: inversion(10, 100), retrain),
)


def run_case(case: Case, size: int) -> None:
    """Do the work in this process, and print what it took."""
    torch.set_num_threads(1)
    case.work(case.prepare(case.sizes[0]), case.sizes[0])  # imports, and what is made once
    prepared = case.prepare(size)
    peak = Peak()
    time.sleep(0.1)
    before, began = peak.bytes, time.process_time()
    case.work(prepared, size)
    print(json.dumps({"seconds": time.process_time() - began, "bytes": peak.bytes - before}))


def main() -> None:
    """Print one row per case and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="cases whose name begins so")
    parser.add_argument("--repeats", type=int, default=1, help="the median of so many is shown")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        run_case(next(case for case in CASES if case.what == arguments.case[0]), int(arguments.case[1]))
        return
    print("| what grows | size | CPU s | grows | memory | grows |\n|---|--:|--:|--:|--:|--:|")
    for case in CASES:
        if arguments.only and not case.what.startswith(tuple(arguments.only)):
            continue
        earlier: tuple[int, float, float] | None = None
        for size in case.sizes:
            line = [sys.executable, "-m", "tests.benchmarks.growth", "--case", case.what, str(size)]
            told = [
                json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
                for _ in range(arguments.repeats)
            ]
            seconds, taken = (statistics.median(one[name] for one in told) for name in ("seconds", "bytes"))
            ratios = (
                ("", "") if earlier is None else (f"{seconds / earlier[1]:.1f}", f"{taken / max(1, earlier[2]):.1f}")
            )
            of = "" if earlier is None else f" of {size / earlier[0]:g}"
            row = (case.what, f"{size:,}", f"{seconds:.2f}", ratios[0] + of, f"{taken / 1e6:,.0f} MB", ratios[1])
            print(f"| {' | '.join(row)} |", flush=True)
            earlier = size, seconds, taken


if __name__ == "__main__":
    main()
