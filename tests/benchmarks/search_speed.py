"""How fast a search step is beside a plain textbook formulation of the same step.

    python tests/benchmarks/search_speed.py [--repeats 5]

Both run in one process, on the same network and batches, alternating, because a machine's speed drifts. *Textbook* is
the algorithm written from its paper in the plainest way: float32, (B, C, H, W) in memory, `loss.backward()` into every
parameter, candidates scored one batch after the other. *Product* is `DartsSearch.step`, `Spos`'s step and `OneShotScorer` at
their default precision. Bars: DARTS first order no slower; SPOS step and candidate scoring at least 1.5 times as fast.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dfnas_ray.algorithms.base import SearchProblem
from dfnas_ray.algorithms.darts import DartsSearch, DartsSearchConfig
from dfnas_ray.algorithms.spos import Spos, SposConfig
from dfnas_ray.ops.latency import device_name
from dfnas_ray.ops.mixed import Mixture
from dfnas_ray.search_spaces import DartsSpaceConfig, NASBenchMacroConfig, SearchSpace, ShuffleNetConfig
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.training.batches import Batch, SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages
from dfnas_ray.training.distillation import distillation_loss

SHAPE, CLASSES, TEMPERATURE, CLIP = (3, 32, 32), 10, 3.0, 5.0
BATCH_SIZE, NUM_IMAGES, CALIBRATION_BATCHES = 128, 1024, 8  # the batch size is SposConfig's own


# --- Textbook ---------------------------------------------------------------------------------------------------------


def textbook_spos_step(
    supernet: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, path: tuple[int | None, ...]
) -> float:
    """One path, every gradient, one step: Guo et al. 2020."""
    supernet.train()
    optimizer.zero_grad()
    loss = distillation_loss(supernet(batch.images, path), batch.teacher_logits, TEMPERATURE)
    loss.backward()
    nn.utils.clip_grad_norm_(supernet.parameters(), CLIP)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def textbook_score(
    supernet: nn.Module, path: tuple[int | None, ...], calibration: list[torch.Tensor], validation: list[Batch]
) -> float:
    """Statistics from scratch, then the validation images."""
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    supernet.train()
    for images in calibration:
        supernet(images, path)
    supernet.eval()
    losses = [distillation_loss(supernet(x, path), logits, TEMPERATURE).item() for x, logits in validation]
    return -statistics.mean(losses)


class TextbookDarts:
    """First-order DARTS: Liu et al. 2019, Algorithm 1."""

    def __init__(self, space: SearchSpace, supernet: nn.Module):
        self.space, self.supernet = space, supernet
        self.alphas = [(1e-3 * torch.randn(shape)).requires_grad_() for shape in space.alpha_shapes()]
        self.optimizer = torch.optim.SGD(supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.alpha_optimizer = torch.optim.Adam(self.alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def loss(self, batch: Batch) -> torch.Tensor:
        rows = [row for alphas in self.alphas for row in alphas.softmax(dim=1)]
        mixtures = [Mixture(tuple(range(len(row))), row) for row in rows]
        return distillation_loss(self.supernet(batch.images, mixtures), batch.teacher_logits, TEMPERATURE)

    def step(self, train: Batch, valid: Batch) -> float:
        self.supernet.train()
        self.alpha_optimizer.zero_grad()
        self.loss(valid).backward()
        self.alpha_optimizer.step()
        self.optimizer.zero_grad()
        loss = self.loss(train)
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()


# --- Measuring --------------------------------------------------------------------------------------------------------


def compare(name: str, textbook: Callable[[], object], product: Callable[[], object], repeats: int, bar: float) -> bool:
    """Print both times and their ratio; return whether the bar is reached."""
    textbook(), product()
    times: dict[str, list[float]] = {"textbook": [], "product": []}
    for _ in range(repeats):
        for kind, run in (("textbook", textbook), ("product", product)):
            started = time.perf_counter()
            run()
            times[kind].append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(times["textbook"], times["product"], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{name:<42} textbook {1000 * statistics.median(times['textbook']):7.0f} ms   product "
        f"{1000 * statistics.median(times['product']):7.0f} ms   ratio {ratio:.2f}x ({min(ratios):.2f} .. {max(ratios):.2f})"
        f"   bar {bar}x: {'yes' if ratio >= bar else 'NO'}",
        flush=True,
    )
    return ratio >= bar


def make_problem(space: SearchSpace) -> SearchProblem:
    torch.manual_seed(0)
    teacher = freeze_teacher("resnet20", resnet20(CLASSES), SHAPE, (0.5,) * 3, (0.25,) * 3)
    rng = np.random.default_rng(0)
    data = SyntheticImages(
        images=rng.integers(0, 256, (NUM_IMAGES, *SHAPE), dtype=np.uint8),
        labels=np.zeros(NUM_IMAGES, np.int64),
        rounds=np.zeros(NUM_IMAGES, np.int64),
        logits=rng.normal(size=(NUM_IMAGES, CLASSES)).astype(np.float32),
        ids=np.arange(NUM_IMAGES, dtype=np.uint64),
    )
    distillation = DistillationConfig(labels="stored")  # the teacher's own time is not the search's
    batches = SyntheticBatches(DeviceImages(data, torch.device("cpu")), teacher, distillation, BATCH_SIZE, 0)
    return SearchProblem(space, batches, batches, distillation, None, 0, "auto")


def measure_spos(space: SearchSpace, repeats: int) -> list[bool]:
    problem = make_problem(space)
    algorithm: Spos = SposConfig(batch_size=BATCH_SIZE, calibration_batches=CALIBRATION_BATCHES).algorithm(problem)
    batch = next(problem.train.epoch(0))
    plain = Batch(batch.images.contiguous(), batch.teacher_logits)
    supernet = copy.deepcopy(algorithm.supernet).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4, nesterov=True)
    rng = np.random.default_rng(0)
    paths = [space.choices(space.sample(rng)) for _ in range(6)]

    def textbook() -> None:
        for path in paths:
            textbook_spos_step(supernet, optimizer, plain, path)

    def product() -> None:
        for path in paths:
            algorithm.student.step(batch, lambda images, path=path: algorithm.supernet(images, path))

    results = [compare(f"SPOS step, {space.kind}, {len(paths)} paths", textbook, product, repeats, 1.5)]
    scorer = algorithm.scorer()
    calibration = [images.contiguous() for images in scorer.calibration]
    validation = [Batch(b.images.contiguous(), b.teacher_logits) for b in scorer.validation]
    candidates = [space.sample(rng) for _ in range(4)]
    weights = copy.deepcopy(scorer.supernet).to(memory_format=torch.contiguous_format)
    plain_scores = [textbook_score(weights, space.choices(c), calibration, validation) for c in candidates]
    scores = scorer(candidates)
    results.append(
        compare(
            f"Scoring of {len(candidates)} candidates, {space.kind}",
            lambda: [textbook_score(weights, space.choices(c), calibration, validation) for c in candidates],
            lambda: scorer(candidates),
            repeats,
            1.5,
        )
    )
    apart = max(abs(a - b) / abs(a) for a, b in zip(plain_scores, scores, strict=True))
    print(f"{'':<42} scores differ by at most {apart:.2%} of their size")
    return results


def measure_darts(space: SearchSpace, repeats: int) -> list[bool]:
    problem = make_problem(space)
    algorithm: DartsSearch = DartsSearchConfig(batch_size=32).algorithm(problem)
    train, valid = (next(part.epoch(0)) for part in (algorithm.weight_batches, algorithm.alpha_batches))
    train, valid = (Batch(b.images[:32], b.teacher_logits[:32]) for b in (train, valid))
    plain = TextbookDarts(space, copy.deepcopy(algorithm.supernet).to(memory_format=torch.contiguous_format))
    plain_train, plain_valid = (Batch(b.images.contiguous(), b.teacher_logits) for b in (train, valid))
    name = "DARTS step, first order, batch 32"
    return [
        compare(name, lambda: plain.step(plain_train, plain_valid), lambda: algorithm.step(train, valid), repeats, 1.0)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    root = Path(__file__).parents[2]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout
    print(
        f"{device_name(torch.device('cpu'))}, {platform.machine()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, commit {commit.strip()}, {datetime.date.today()}, batch {BATCH_SIZE}, images 3x32x32"
    )
    results = measure_darts(DartsSpaceConfig().space(SHAPE, CLASSES), repeats)
    for config in (NASBenchMacroConfig(), ShuffleNetConfig(form="cifar")):
        results += measure_spos(config.space(SHAPE, CLASSES), repeats)
    print("All bars reached." if all(results) else "A bar was missed.")


if __name__ == "__main__":
    main()
