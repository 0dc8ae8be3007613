"""Piece 3: does it matter what a supernet learns from? SPOS on NAS-Bench-Macro on synthetic, real and noise images, and on
labels that say nothing, against the table's true accuracies.

Every cell of the comparison, a source and a seed, is a process of its own; as many as there are cores for share the GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from dfnas_ray.algorithms.base import SearchProblem, SearchState
from dfnas_ray.algorithms.one_shot import OneShotScorer
from dfnas_ray.algorithms.spos import SposConfig
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.ranking.statistics import regret
from dfnas_ray.ranking.table import BenchmarkTable, read_table
from dfnas_ray.search_spaces.nasbench_macro import NASBenchMacro, NASBenchMacroConfig
from dfnas_ray.seeding import derive_seed, numpy_generator, seed_everything
from dfnas_ray.sources.base import Drawn, SetSize, draw_all, labelled
from dfnas_ray.sources.noise import NoiseSource
from dfnas_ray.sources.real import RealSource
from dfnas_ray.sources.synthetic import shuffle_labels
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SplitBatches
from dfnas_ray.training.config import DistillationConfig, OptimizerConfig
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.cifar10 import POOL

TABLE, TRAINING_IMAGES = "nasbench_macro_cifar10_dev.csv", "cifar10_train.parquet"
SOURCES = ("synthetic", "real", "noise", "shuffled labels")
SEEDS = (0, 1, 2)
MARGIN = 2
WORKERS = 4
SPARE_SECONDS = 10
OUT_OF_TIME = 75  # EX_TEMPFAIL of sysexits.h: run the same command again


@dataclass(frozen=True)
class Cell:
    """One supernet, trained on one source with one seed.

    Attributes:
        source: Of `SOURCES`.
        seed: Of the images' draw, the weights, the batches and the paths.
        images: How many.
        epochs: Of training.
        architectures: How many chains are scored, the same in every cell.
    """

    source: str
    seed: int
    images: int
    epochs: int
    architectures: int

    @property
    def name(self) -> str:
        return f"{self.source}, seed {self.seed}"


def run(bench: Bench) -> dict[str, Any]:
    """Fill the cells that are not there yet, seed after seed, as long as there is time."""
    images, epochs, chains = bench.pick(20_000, 64), bench.pick(30, 1), bench.pick(400, 4)
    cells = [Cell(source, seed, images, epochs, chains) for seed in SEEDS[: bench.pick(3, 1)] for source in SOURCES]
    space, table = truth(bench, chains)
    macs = np.array([space.cost(architecture).macs for architecture in table.architectures], np.float64)
    before = bench.read("question")
    result: dict[str, Any] = {
        "images": images,
        "epochs": epochs,
        "accuracies": table.accuracies.tolist(),
        "macs": agreement(macs, table.accuracies),
        "cells": before.get("cells", {}),
    }
    todo = [cell for cell in cells if cell.name not in result["cells"]]
    if bench.small:
        for cell in todo:
            result["cells"][cell.name] = fill(bench, cell)
        return result
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(WORKERS, mp_context=context, initializer=torch.set_num_threads, initargs=(2,))
    futures: dict[Future[dict[str, Any]], Cell] = {pool.submit(fill, bench, cell): cell for cell in todo}
    try:
        for future in as_completed(futures, timeout=bench.left - SPARE_SECONDS):
            cell = futures[future]
            result["cells"][cell.name] = future.result()
            print(cell.name, {k: v for k, v in future.result().items() if k != "scores"}, flush=True)
            bench.write("question", result)
    except TimeoutError:
        print(f"out of time after {len(result['cells'])} of {len(cells)} cells", flush=True)
        bench.write("question", result)
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(OUT_OF_TIME)  # the others would be waited for
    return result


def truth(bench: Bench, chains: int) -> tuple[NASBenchMacro, BenchmarkTable]:
    """Return the space, and chains of it with their true accuracies: drawn from all of the table, the same for all."""
    shape = (3, 32, 32)
    if bench.small:
        small = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(4, 8), head_channels=8)
        space = small.space(shape, 10)
        rng = numpy_generator(0, "chains")
        different = {space.encode(space.sample(rng)): None for _ in range(50)}
        drawn = tuple(space.decode(text) for text in list(different)[:chains])
        return space, BenchmarkTable(drawn, np.linspace(80, 90, len(drawn)), "accuracy")
    space = NASBenchMacroConfig().space(shape, 10)
    config = BenchmarkConfig(table=str(bench.data / TABLE), architectures=chains)
    return space, read_table(config, space).sample(config, 0)


def fill(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Train one supernet, score the chains with it, and say how well the order agrees with the truth."""
    began = time.perf_counter()
    teacher = bench.teacher().to(bench.device)
    space, table = truth(bench, cell.architectures)
    images = source_images(bench, cell, teacher)
    labels = "stored" if cell.source == "shuffled labels" else "online"
    distillation = DistillationConfig(labels=labels)
    batch_size = bench.pick(256, 16)
    split = SplitBatches(
        images, teacher, distillation, batch_size, cell.seed, bench.device, 0.1, cell.seed, precision="bfloat16"
    )
    seed_everything(derive_seed(cell.seed, "question"))
    problem = SearchProblem(space, split.train, split.validation, distillation, None, cell.seed, "bfloat16")
    config = SposConfig(epochs=cell.epochs, batch_size=batch_size, optimizer=OptimizerConfig(lr=0.1, weight_decay=1e-4))
    state = SearchState(config.algorithm(problem))
    prepared = time.perf_counter()
    state.train()
    trained = time.perf_counter()
    scorer = state.algorithm.scorer()
    assert isinstance(scorer, OneShotScorer)
    scorer.validation = split.validation.centres(bench.pick(2000, 16))
    scores = np.array([measured["score"] for measured in scorer(table.architectures)])
    scored = time.perf_counter()
    return {
        **agreement(scores, table.accuracies),
        "loss": round(state.history[-1]["loss"], 4),
        "prepare_s": round(prepared - began, 1),
        "train_s": round(trained - prepared, 1),
        "score_s": round(scored - trained, 1),
        "scores": np.round(scores, 5).tolist(),
    }


def source_images(bench: Bench, cell: Cell, teacher: Teacher) -> SyntheticImages:
    """Return the images of one source on canvases of one size, with the teacher's logits on their centres."""
    size = SetSize(cell.images, cell.images, (3, 32 + 2 * MARGIN, 32 + 2 * MARGIN))
    if cell.source == "noise" or bench.small:
        return draw_all(teacher, NoiseSource(), size, cell.seed, "noise")
    if cell.source == "real":
        dataset = ParquetConfig(kind="parquet", path=str(bench.data / TRAINING_IMAGES))
        return draw_all(teacher, RealSource(dataset=dataset, labels="teacher"), size, cell.seed, "real")
    made = torch.load(bench.out / POOL, weights_only=True).numpy()
    images = labelled(teacher, Drawn(made[-cell.images :]), 0)
    return images if cell.source == "synthetic" else shuffle_labels(images, cell.seed)


def agreement(scores: np.ndarray[Any, Any], accuracies: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return Kendall's tau, and the regret of the chains that are scored highest, in points."""
    one, five = (float(regret(scores[None], accuracies[None], top)[0]) for top in (1, 5))
    tau = float(kendalltau(scores, accuracies).statistic)
    return {"tau": round(tau, 4), "regret_1": round(one, 3), "regret_5": round(five, 3)}


if __name__ == "__main__":
    raise SystemExit(f"Run it as a piece of the runbook, python -m tests.benchmarks.gpu; {Path(__file__).name} is one.")
