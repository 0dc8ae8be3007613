"""What a search is worth: its network beside random networks of the same MACs, on real test images.

    python tests/benchmarks/search_worth.py experiments/digits*.yaml --seeds 0 1 2 --random 5 --json worth.json

For each experiment, the synthetic images of its root seed are made once. Each search seed then ends at an architecture,
the best of its finalists on synthetic validation images. It and random architectures of the same space whose MACs are
within 10 % are retrained in the same way (initial weights, order and split of the images differ by seed), and all are
measured on the experiment's real images, which nothing before has read. Search and retraining are the package's own, with
its inline executor: one thread per process; the time of a search is therefore that of one core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from dfnas_ray import load_experiment
from dfnas_ray.ops.latency import device_name
from dfnas_ray.progress import Silent
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, numpy_generator
from dfnas_ray.storage.location import Location
from dfnas_ray.training.evaluation import evaluate_networks
from dfnas_ray.training.retraining import RetrainingJob
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Task:
    """One search seed of one experiment, in a copy of the run directory that has its images."""

    file: Path
    overrides: tuple[str, ...]
    run_dir: Path
    seed: int
    num_random: int
    retrainings: int


def retrain(session: Session, search: Search, genotype: Genotype, seed: int, folder: Location) -> torch.nn.Module:
    """Train one architecture on the run's images, as the retraining stage does."""
    config, executor, space = session.config, session.executor, session.spaces[0]
    job = RetrainingJob(
        config.retraining, config.cluster.retraining, seed, space, genotype, config.search.validation_fraction, folder
    )
    images = session.images(search.synthesis.location)
    with Silent().task("Retraining", 1, "epoch") as task, executor.show(task) as board:
        return executor.train(job, session.shared_teacher, images, board).network


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
    inline = (f"search.seeds=[{task.seed}]", f"run_dir={task.run_dir}", "cluster.address=inline")
    config = load_experiment(task.file, [*task.overrides, *inline])
    assert len(config.search.pairs) == 1, "one algorithm in one space"
    assert config.evaluation.dataset is not None
    with Session(config).opened() as session:
        search = Search(session)
        found, seconds = search.architecture(), search.finish().record.seconds
        space, genotype = found.space, found.genotype
        candidates = [genotype] * task.retrainings + random_like(space, genotype, task.num_random, task.seed)
        networks = {}
        for number, candidate in enumerate(candidates):
            folder = (Location.parse(task.run_dir) / f"retrained-{number}").make_dir()
            networks[str(number)] = retrain(session, search, candidate, derive_seed(task.seed, "worth", number), folder)
        accuracy = evaluate_networks(networks, session.teacher, config.evaluation.dataset.open(), CPU)
    return {
        "experiment": config.name,
        "seed": task.seed,
        "genotype": found.text,
        "macs": found.cost.macs,
        "search_seconds": round(seconds, 1),
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
    parser.add_argument("--run-dir", default=None, help="Where everything is kept; by default nowhere.")
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
            config = load_experiment(file, [*arguments.overrides, f"run_dir={base}/{file.stem}/images"])
            with Session(config).opened() as session:
                order.synthesize(session)
            for seed in arguments.seeds:
                own = Path(base) / file.stem / f"seed-{seed}"
                for name in ("synthesis", "teacher"):
                    shutil.copytree(Path(config.run_directory) / name, own / name, dirs_exist_ok=True)
                tasks.append(Task(file, tuple(arguments.overrides), own, seed, arguments.random, arguments.retrainings))
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
