"""What a search is worth: its network beside random networks of the same MACs, on real test images.

    python tests/benchmarks/search_worth.py experiments/digits*.yaml --seeds 0 1 2 --random 5 --json worth.json

For each experiment, the synthetic images of its root seed are made once. Each search seed then ends at an architecture,
the best of its finalists on synthetic validation images. It and random architectures of the same space whose MACs are
within 10 % are retrained in the same way (initial weights and order of the images differ by seed), and all are measured
on the experiment's real images, which nothing before has read. One thread per process; the time of a search is therefore
that of one core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dfnas_ray import load_experiment, synthesize
from dfnas_ray.algorithms.base import SCORE, SearchProblem, SearchState
from dfnas_ray.algorithms.stand_alone import StandAloneScorer
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.ops.latency import device_name
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, numpy_generator, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages, load_shards
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SyntheticBatches, split_mask
from dfnas_ray.training.evaluation import evaluate_networks
from dfnas_ray.training.student import Student

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Task:
    """One search seed of one experiment."""

    file: Path
    overrides: tuple[str, ...]
    images_folder: str
    teacher_folder: str
    seed: int
    num_random: int
    retrainings: int


def batches_of(
    config: ExperimentConfig, teacher: Teacher, images: SyntheticImages, batch_size: int, seed: int, distillation: Any
) -> list[SyntheticBatches]:
    mask = split_mask(images.ids, config.search.validation_fraction, config.seed)
    return [
        SyntheticBatches(images.select(side), teacher, distillation, batch_size, seed, CPU) for side in (~mask, mask)
    ]


def search(
    config: ExperimentConfig, teacher: Teacher, images: SyntheticImages, seed: int
) -> tuple[SearchSpace, Genotype]:
    (algorithm, space_config), *more = config.search.pairs
    assert not more, "one algorithm in one space"
    trial_seed = derive_seed(config.seed, "search", seed)
    seed_everything(trial_seed)
    train, validation = batches_of(
        config, teacher, images, algorithm.batch_size, trial_seed, config.search.distillation
    )
    space = space_config.space(teacher.image_shape, teacher.num_classes)
    limit = config.search.macs_limit(teacher.cost.macs)
    problem = SearchProblem(
        space, train, validation, config.search.distillation, limit, trial_seed, config.search.precision
    )
    state = SearchState(algorithm.algorithm(problem))
    state.run()
    finalists = state.algorithm.finalists(config.search.selection.finalists)
    return space, select(config, teacher, images, space, finalists, trial_seed)


def select(
    config: ExperimentConfig,
    teacher: Teacher,
    images: SyntheticImages,
    space: SearchSpace,
    finalists: list[Genotype],
    seed: int,
) -> Genotype:
    """Train each finalist alone, as the product does, and return the best on synthetic validation images."""
    selection, distillation = config.search.selection, config.search.distillation
    train, validation = batches_of(config, teacher, images, selection.batch_size, seed, distillation)
    scorer = StandAloneScorer(
        space, train, validation, distillation, selection.optimizer, selection.epochs, seed, config.search.precision
    )
    scores = [measured[SCORE] for measured in scorer(finalists)]
    return finalists[int(np.nanargmax(scores))]


def retrain(
    config: ExperimentConfig,
    teacher: Teacher,
    images: SyntheticImages,
    space: SearchSpace,
    genotype: Genotype,
    seed: int,
) -> nn.Module:
    settings = config.retraining
    train, _ = batches_of(config, teacher, images, settings.batch_size, seed, settings.distillation)
    seed_everything(seed)
    network = space.build(genotype)
    total = settings.epochs * len(train)
    student = Student(network, settings.optimizer, settings.distillation.temperature, total, settings.precision)
    for epoch in range(settings.epochs):
        for batch in train.epoch(epoch):
            student.step(batch)
    return network.eval()


def random_like(space: SearchSpace, genotype: Genotype, count: int, seed: int) -> list[Genotype]:
    """Draw architectures whose MACs are within 10 % of this one's."""
    rng, budget, found = numpy_generator(seed, "worth"), space.cost(genotype).macs, []
    for _ in range(200_000):
        if len(found) == count:
            return found
        draw = space.sample(rng)
        if draw not in (genotype, *found) and abs(space.cost(draw).macs - budget) <= 0.1 * budget:
            found.append(draw)
    raise SystemExit(f"{space.kind} has too few architectures like {space.encode(genotype)}.")


def run(task: Task) -> dict[str, Any]:
    torch.set_num_threads(1)
    config = load_experiment(task.file, task.overrides)
    teacher = config.teacher.load(Path(task.teacher_folder))
    folder = Location.parse(task.images_folder)
    images = load_shards(folder, (folder / "manifest.json").read_json())
    started = time.perf_counter()
    space, genotype = search(config, teacher, images, task.seed)
    search_seconds = time.perf_counter() - started
    candidates = [genotype] * task.retrainings + random_like(space, genotype, task.num_random, task.seed)
    networks = {
        str(number): retrain(config, teacher, images, space, candidate, derive_seed(task.seed, "worth", number))
        for number, candidate in enumerate(candidates)
    }
    assert config.evaluation.dataset is not None
    accuracy = evaluate_networks(networks, teacher, config.evaluation.dataset.open(), CPU)
    return {
        "experiment": config.name,
        "seed": task.seed,
        "genotype": space.encode(genotype),
        "macs": space.cost(genotype).macs,
        "search_seconds": round(search_seconds, 1),
        "accuracy": [accuracy[str(number)] for number in range(task.retrainings)],
        "random": [accuracy[str(number)] for number in range(task.retrainings, len(candidates))],
        "random_genotypes": [space.encode(candidate) for candidate in candidates[task.retrainings :]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--random", type=int, default=5)
    parser.add_argument("--retrainings", type=int, default=3, help="Of the network found, from different weights.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--run-dir", default=None, help="Where the images are kept; by default nowhere.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    root = Path(__file__).parents[2]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout
    print(
        f"{device_name(CPU)}, torch {torch.__version__}, commit {commit.strip()}, {datetime.date.today()}", flush=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        base = arguments.run_dir or scratch
        tasks = []
        for file in arguments.files:
            config = load_experiment(file, [*arguments.overrides, f"run_dir={base}/images"])
            images = str(synthesize(config).location)
            tasks += [
                Task(
                    file,
                    tuple(arguments.overrides),
                    images,
                    f"{base}/images/teacher",
                    seed,
                    arguments.random,
                    arguments.retrainings,
                )
                for seed in arguments.seeds
            ]
        results = []
        with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
            for result in pool.map(run, tasks):
                results.append(result)
                print(
                    f"{result['experiment']} seed {result['seed']}: {result['genotype']}, {result['macs']:,} MACs, search "
                    f"{result['search_seconds']} s: {listed(result['accuracy'])}; random {listed(result['random'])}",
                    flush=True,
                )
    for name in dict.fromkeys(result["experiment"] for result in results):
        of_name = [result for result in results if result["experiment"] == name]
        own, others = ([statistics.mean(result[kind]) for result in of_name] for kind in ("accuracy", "random"))
        everyone = [accuracy for result in of_name for accuracy in result["random"]]
        print(f"{name}: means by seed: searched {spread(own)}, random {spread(others)}; all random {spread(everyone)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"commit": commit.strip(), "results": results}, indent=1))


def listed(values: list[float]) -> str:
    mean = f", mean {statistics.mean(values):.2%}" if values else ""
    return ", ".join(f"{value:.2%}" for value in values) + mean


def spread(values: list[float]) -> str:
    if not values:
        return "none"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2%} +- {deviation:.2%} ({min(values):.2%} .. {max(values):.2%}, {len(values)})"


if __name__ == "__main__":
    main()
