"""What supernets and training-free figures say together: both votes on the chains that the GPU runbook's piece `question` scored.

    python tests/benchmarks/votes.py --question OUT/question.json --images OUT/cifar10-images.pt --data DATA --out VOTES

Training-free figures are measured here, on 2,000 of the same synthetic images, with seeds 0 and 1 (resumable); the supernets'
scores are read. DATA holds the published ResNet-20 and half of NAS-Bench-Macro's table, which orders and chooses nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfnas_ray.algorithms.base import SearchProblem
from dfnas_ray.algorithms.borda import Places, places
from dfnas_ray.algorithms.zero_cost.search import ZeroCostConfig
from dfnas_ray.ranking.statistics import draw_resamples, measure_agreement
from dfnas_ray.sources.base import Drawn, labelled
from dfnas_ray.training.batches import SplitBatches
from dfnas_ray.training.config import DistillationConfig
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.question import truth

IMAGES = 2000
UNTRAINED_SEEDS = (0, 1)


def untrained(bench: Bench, images: Path, seed: int, chains: int) -> list[float]:
    """Return the training-free sum of every chain; what was measured before is read."""
    file = bench.out / f"untrained-{seed}.json"
    space, table = truth(bench, chains)
    canvases = torch.load(images, weights_only=True)[:IMAGES].numpy()
    teacher, distillation = bench.teacher(), DistillationConfig()
    split = SplitBatches(
        labelled(teacher, Drawn(canvases), 0), teacher, distillation, 64, seed, bench.device, 0.1, seed
    )
    problem = SearchProblem(space, split.train, split.validation, distillation, None, seed)
    algorithm = ZeroCostConfig(batch_size=64).algorithm(problem)
    scorer = algorithm.scorer()
    measured: list[dict[str, float]] = json.loads(file.read_text()) if file.exists() else []
    for genotype in table.architectures[len(measured) :]:
        measured += scorer([genotype])
        if len(measured) % 20 == 0:
            file.write_text(json.dumps(measured))
            print(f"seed {seed}: {len(measured)} of {chains} chains", flush=True)
    file.write_text(json.dumps(measured))
    return algorithm.rank(measured)


def table_of(question: dict[str, Any], sums: Sequence[Sequence[float]]) -> str:
    """Return each ranking's agreement with the table as Markdown."""
    accuracies = np.array(question["accuracies"])
    resamples = draw_resamples(len(accuracies), 0)
    scores: dict[str, dict[int, list[float]]] = {}
    for name, cell in question["cells"].items():
        source, seed = name.rsplit(", seed ", 1)
        scores.setdefault(source, {})[int(seed)] = cell["scores"]
    free = places(sums[0])
    rankings: dict[str, list[Places]] = {"training-free sum": [places(values) for values in sums]}
    for source, of_seeds in scores.items():
        votes = [places(values) for values in of_seeds.values()]
        together = places(np.sum(votes, axis=0).tolist())
        rankings[f"supernet, {source}"] = votes
        rankings[f"supernet, {source} + sum"] = [vote + free for vote in votes]
        rankings[f"{len(votes)} supernets, {source}"] = [together]
        rankings[f"{len(votes)} supernets, {source} + sum"] = [together + free]
    lines = ["| ranking | tau | 95 % | by seed | regret@1 | regret@5 |", "|---|---|---|---|---|---|"]
    for name, votes in rankings.items():
        found = measure_agreement(np.array(votes), accuracies, resamples)
        seeds = ", ".join(f"{value:.3f}" for value in found.tau.per_seed)
        lines.append(
            f"| {name} | {found.tau.mean:.3f} | {found.tau.low:.3f} .. {found.tau.high:.3f} | {seeds} | "
            f"{found.regret[1].mean:.2f} | {found.regret[5].mean:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--question", "--images", "--data", "--out"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    question = json.loads(options.question.read_text())
    torch.set_num_threads(1)
    bench = Bench(options.data, options.out, torch.device("cpu"), seconds=float("inf"))
    chains = len(question["accuracies"])
    print(table_of(question, [untrained(bench, options.images, seed, chains) for seed in UNTRAINED_SEEDS]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
