"""Do a sweep's objectives agree with real images? Spearman's rho over its trials, and the accuracy of its choice.

    python tests/benchmarks/sweep_truth.py experiments/digits-sweep.yaml runs/digits-sweep --json truth.json

Reads a finished sweep. For each trial, a student - the sweep's own architecture - is trained on the trial's images with
the experiment's retraining settings, and measured on the experiment's real images: the sweep has not seen them, and
nothing here goes back into it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

from dfnas_ray import load_experiment
from dfnas_ray.ops.latency import device_name
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages, decode_shard, read_info
from dfnas_ray.sweeps.measure import proxy_architecture, train_student
from dfnas_ray.sweeps.record import trial_folder
from dfnas_ray.training.evaluation import evaluate_networks
from dfnas_ray.workflow.session import Session

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Task:
    file: Path
    overrides: tuple[str, ...]
    folder: str
    trial: int
    seed: int


def images_in(folder: Location) -> SyntheticImages:
    """Return the images of all shards of a folder that has no manifest: a trial's, or a reference setting's."""
    names = [name for name in folder.file_names() if name.startswith("shard-")]
    parts = [decode_shard((folder / name).read_bytes(), read_info(folder / name).key, name)[1] for name in names]
    return SyntheticImages.concatenate(parts)


def real_accuracy(task: Task) -> float:
    torch.set_num_threads(1)
    config = load_experiment(task.file, task.overrides)
    session = Session(config)
    images = images_in(trial_folder(Location.parse(task.folder), task.trial))
    space = session.spaces[0]
    seed = derive_seed(config.seed, "sweep-truth", task.seed)
    seed_everything(seed)
    network = space.build(proxy_architecture(space, session.max_macs, config.seed))
    settings = config.retraining
    steps = settings.epochs * max(1, config.synthesis.images_in_total // settings.batch_size)  # as in a whole run
    assert config.sweep is not None
    student = config.sweep.student.model_copy(
        update={"steps": steps, "batch_size": settings.batch_size, "optimizer": settings.optimizer}
    )
    train_student(network, images, session.teacher, student, settings.distillation, seed, CPU)
    assert config.evaluation.dataset is not None
    return evaluate_networks({"student": network}, session.teacher, config.evaluation.dataset.open(), CPU)["student"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("run_dir")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--trials", nargs="+", type=int, help="Only these, as the best with new --seeds; the chosen one among them."
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    run_dir = Location.parse(arguments.run_dir)
    folder = run_dir / "sweep" / (run_dir / "latest.json").read_json()["sweep"]
    trials = [trial for trial in (folder / "trials.json").read_json() if trial["values"] is not None]
    trials = [trial for trial in trials if arguments.trials is None or trial["number"] in arguments.trials]
    best = (folder / "done.json").read_json()["best"]["number"]
    overrides = (*arguments.overrides, f"run_dir={arguments.run_dir}")
    tasks = [
        Task(arguments.file, overrides, str(folder), t["number"], seed) for t in trials for seed in arguments.seeds
    ]
    root = Path(__file__).parents[2]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout
    print(f"{device_name(CPU)}, torch {torch.__version__}, commit {commit.strip()}, {datetime.date.today()}")
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        measured = list(pool.map(real_accuracy, tasks))
    truth: dict[int, list[float]] = {}
    for task, accuracy in zip(tasks, measured, strict=True):
        truth.setdefault(task.trial, []).append(accuracy)
    means = {number: statistics.mean(values) for number, values in truth.items()}
    names = sorted({name for trial in trials for name in trial["figures"]} - {"rounds", "labelled_accuracy"})
    paths = list(trials[0]["settings"])
    print("| trial | " + " | ".join(path.rsplit(".", 2)[-2] + "." + path.rsplit(".", 1)[-1] for path in paths), end="")
    print(" | " + " | ".join(names) + " | real accuracy |\n|" + "---|" * (len(paths) + len(names) + 2))
    for trial in sorted(trials, key=lambda trial: -means[trial["number"]]):
        cells = [f"{trial['settings'][path]:.3g}" for path in paths] + [
            f"{trial['figures'][name]:.4f}" for name in names
        ]
        mark = " (chosen)" if trial["number"] == best else ""
        every = ", ".join(f"{accuracy:.2%}" for accuracy in truth[trial["number"]])
        print(f"| {trial['number']}{mark} | {' | '.join(cells)} | {means[trial['number']]:.2%} ({every}) |")
    rho: dict[str, Any] = {}
    for name in names:
        result = spearmanr([t["figures"][name] for t in trials], [means[t["number"]] for t in trials])
        rho[name] = float(result.statistic)
        print(
            f"Spearman of {name} with real accuracy over {len(trials)} trials: {rho[name]:+.3f} (p {result.pvalue:.2g})"
        )
    print(f"chosen: {means[best]:.2%}; best of all trials: {max(means.values()):.2%}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"commit": commit.strip(), "trials": trials, "real": truth, "rho": rho}))


if __name__ == "__main__":
    main()
