"""Does the order at a low rung foretell the order at the highest? With a learning rate that falls at each rung, and without.

    dfnas synthesize experiments/digits-multi-fidelity.yaml
    python tests/benchmarks/rung_order.py experiments/digits-multi-fidelity.yaml --rungs 2 6 18 --cells 10 --seed 7

Prints, per schedule and rung, Kendall's tau with the same schedule's highest rung, and the mean distillation loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from scipy.stats import kendalltau

from dfnas_ray import load_experiment
from dfnas_ray.algorithms.stand_alone import CandidateTraining
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.shard_sets import load_shards
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.splits import split_mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--run-dir")
    parser.add_argument("--rungs", type=int, nargs="+", default=[2, 6, 18])
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_experiment(arguments.experiment)
    run = RunDir(arguments.run_dir or config.run_directory)
    folder = run.latest_stage("synthesis")
    assert folder is not None, "run `dfnas synthesize` first"
    data = load_shards(folder, Manifest.read(folder))
    teacher = config.teacher.load(Path(run.location.path) / "teacher")
    search, (algorithm, space_config), seed = config.search, config.search.pairs[0], arguments.seed
    placed = DeviceImages(data, torch.device("cpu"))
    mask = split_mask(data.ids, search.validation_fraction, config.seed)
    train, validation = (
        SyntheticBatches(placed, teacher, search.distillation, algorithm.batch_size, seed, side=side)
        for side in (~mask, mask)
    )
    space = space_config.space(teacher.image_shape, teacher.num_classes)
    rng, limit = numpy_generator(seed, "rung-order"), search.macs_limit(teacher.cost.macs)
    cells = [space.sample_within(rng, limit) for _ in range(arguments.cells)]

    def losses(genotype: Genotype, ends: list[int]) -> list[float]:
        training = CandidateTraining(
            space, genotype, train, validation, search.distillation, algorithm.optimizer, ends, seed, search.precision
        )
        return [training.train_to(epochs).loss for epochs in arguments.rungs]

    for name, ends in (("falls at each rung", arguments.rungs), ("one cosine", arguments.rungs[-1:])):
        by_rung = list(zip(*(losses(genotype, ends) for genotype in cells), strict=True))
        for epochs, at_rung in zip(arguments.rungs, by_rung, strict=True):
            tau = kendalltau(at_rung, by_rung[-1]).statistic
            print(f"{name}: {epochs} epochs: tau {tau:.2f}, mean loss {sum(at_rung) / len(at_rung):.3f}")


if __name__ == "__main__":
    main()
