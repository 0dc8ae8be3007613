"""By which criterion should a sweep's proxy student be examined? Spearman's rho of each with real accuracy.

    python tests/benchmarks/proxy_criteria.py experiments/digits-sweep.yaml runs/digits-sweep truth.json

Reads a finished sweep and what `sweep_truth.py` measured of it. For each trial the proxy student is trained again, and
examined on the images of every reference setting by several criteria, which are put together in several ways. What looks
best on a few sweeps has to be confirmed on others: with 20 trials, rho is known to some 0.15.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sweep_truth import images_in
from torch import Tensor

from dfnas_ray import load_experiment
from dfnas_ray.ops.regions import center_crop
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.sweeps.measure import proxy_architecture, train_student
from dfnas_ray.sweeps.record import trial_folder
from dfnas_ray.synthesis.quality import measure_quality
from dfnas_ray.workflow.session import Session

CPU = torch.device("cpu")
TEMPERATURE = 4.0


@dataclass(frozen=True)
class Task:
    file: Path
    overrides: tuple[str, ...]
    folder: str
    references: int
    trial: int


def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Whether both see the same class."""
    return (student.argmax(1) == teacher.argmax(1)).float()


def negative_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of the student's distribution from the teacher's, negated: higher is better."""
    first, second = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return -F.kl_div(first, second, reduction="none", log_target=True).sum(1)


def softened(student: Tensor, teacher: Tensor) -> Tensor:
    """The same of softened distributions."""
    return negative_divergence(student, teacher, TEMPERATURE)


def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Pearson's correlation of the logits over the classes (Huang et al. 2022, arXiv:2205.10536)."""
    return F.cosine_similarity(student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True))


CRITERIA = [agreement, negative_divergence, softened, correlation]


def last_round(folder: Location) -> SyntheticImages:
    """Return the images on which a reference setting examines."""
    images = images_in(folder)
    return images.select(images.rounds == images.rounds.max())


@torch.no_grad()
def examine(student: torch.nn.Module, images: SyntheticImages, session: Session) -> list[float]:
    teacher = session.teacher
    views = center_crop(torch.from_numpy(images.images.copy()), (teacher.image_shape[1], teacher.image_shape[2]))
    x = teacher.normalize(views)
    logits, wanted = student(x), teacher.model(x)
    return [float(criterion(logits, wanted).mean()) for criterion in CRITERIA]


def figures(task: Task) -> list[list[float]]:
    """Return every criterion (second axis) on every reference setting (first)."""
    torch.set_num_threads(1)
    config = load_experiment(task.file, task.overrides)
    session, folder = Session(config), Location.parse(task.folder)
    space, seed = session.spaces[0], derive_seed(config.seed, "sweep-student")
    seed_everything(seed)
    assert config.sweep is not None
    student = train_student(
        space.build(proxy_architecture(space, session.max_macs, config.seed)),
        images_in(trial_folder(folder, task.trial)),
        session.teacher,
        config.sweep.student,
        config.retraining.distillation,
        seed,
        CPU,
    )
    return [examine(student, last_round(folder / f"reference-{n:03d}"), session) for n in range(task.references)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("run_dir")
    parser.add_argument("truth", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    run_dir = Location.parse(arguments.run_dir)
    folder = run_dir / "sweep" / (run_dir / "latest.json").read_json()["sweep"]
    overrides = (*arguments.overrides, f"run_dir={arguments.run_dir}")
    config = load_experiment(arguments.file, overrides)
    assert config.sweep is not None
    teacher, reference = Session(config).teacher, config.sweep.reference
    gaps = [
        measure_quality(teacher, last_round(folder / f"reference-{n:03d}")).overall["domain_gap"]
        for n in range(reference.settings)
    ]
    nearest = np.argsort(gaps, kind="stable")[: max(1, round(reference.share * len(gaps)))]
    truth = {
        int(number): float(np.mean(values))
        for number, values in json.loads(arguments.truth.read_text())["real"].items()
    }
    tasks = [Task(arguments.file, overrides, str(folder), reference.settings, number) for number in truth]
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        measured = np.array(list(pool.map(figures, tasks)))  # trial, reference setting, criterion
    print(
        "| criterion | mean of the nearest | worst of the nearest | mean of all | worst of all |\n|---|---|---|---|---|"
    )
    for index, criterion in enumerate(CRITERIA):
        values = measured[:, :, index]
        ways = (values[:, nearest].mean(1), values[:, nearest].min(1), values.mean(1), values.min(1))
        real = np.array(list(truth.values()))
        cells = [f"{spearmanr(way, real).statistic:+.3f}, chooses {real[way.argmax()]:.2%}" for way in ways]
        print(f"| {criterion.__name__} | " + " | ".join(cells) + " |")
    print(f"best of all trials: {max(truth.values()):.2%}")


if __name__ == "__main__":
    main()
