"""A run directory made by hand with the storage API: what the stages would have left, in miniature."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.shards import ShardInfo, encode_shard, manifest_entry, shard_name

SPACE = {
    "kind": "nasbench_macro",
    "stem_channels": 4,
    "stage_layers": [1, 1],
    "stage_channels": [4, 8],
    "head_channels": 8,
}
SHAPE, NUM_CLASSES = (1, 8, 8), 3
SEARCHED, RANDOM = "21", "10"
CONFIG = """\
name: tiny
seed: 7
teacher: {kind: digits, width: 16}
retraining: {baseline: true}
evaluation: {dataset: {kind: digits}}
"""


@pytest.fixture(scope="session")
def space():
    return NASBenchMacroConfig(**SPACE).space(SHAPE, NUM_CLASSES)


def curve(num_steps=6):
    return [
        {"step": step, "losses": {"cross_entropy": 2.0 / (step + 1), "bn_statistics": 50.0 / (step + 1), "total": 60.0}}
        for step in range(num_steps)
    ]


def add_synthesis(run, num_classes=NUM_CLASSES, rounds=2, per_round=12, canvas=(1, 9, 9), num_shards=2, **summary):
    rng = np.random.default_rng(0)
    stage = run.stage(
        "synthesis",
        {
            "teacher": "f" * 64,
            "seed": 7,
            "synthesis": {
                "rounds": rounds,
                "canvas_margin": 1,
                "stages": [{"scale": 2, "steps": 3}, {"scale": 1, "steps": 3}],
            },
        },
    )
    stage.begin()
    run.set_latest([stage])
    entries = []
    for shard in range(num_shards):
        num_rows = rounds * per_round
        labels = np.tile(np.linspace(0, num_classes - 1, per_round).astype(int), rounds)
        data = encode_shard(
            ShardInfo(stage.key, shard, num_shards, "f" * 64, [curve() for _ in range(rounds)]),
            rng.integers(0, 256, (num_rows, *canvas), dtype=np.uint8),
            labels,
            np.repeat(np.arange(rounds), per_round),
            rng.normal(size=(num_rows, num_classes)),
        )
        (stage.location / shard_name(shard)).write_bytes(data)
        entries.append(manifest_entry(shard, data, num_rows).model_dump())
    (stage.location / "manifest.json").write_json({"key": stage.key, "shards": entries})
    quality = {"confidence": 0.8125, "entropy": 0.5, "agreement": 0.75, "domain_gap": 0.0123456789}
    rounds_quality = {str(number): quality for number in range(rounds)}
    (stage.location / "quality.json").write_json({"overall": quality, "rounds": rounds_quality})
    images = num_shards * rounds * per_round
    facts = {"images": images, "shards": num_shards, "made_now": num_shards, "actors": 2, "bytes": 123_456}
    stage.done_file.write_json({**facts, "seconds": 12.0, "finished_at": 1_795_470_000.0, **summary})
    return stage


def add_search(run, synthesis, space, candidates=False):
    stage = run.stage(
        "search",
        {
            "upstream": {"synthesis": synthesis.key},
            "search": {"space": SPACE, "max_macs": "50%", "algorithm": {"kind": "spos"}},
        },
    )
    stage.begin()
    run.set_latest([stage])
    trials = []
    for seed, genotype, score in ((0, SEARCHED, -1.25), (1, RANDOM, -1.5)):
        generations = [
            {"phase": "sampling", "number": number, "best": score, "scores": [score, score - 0.5, float("-inf")]}
            for number in (1, 2)
        ]
        for entry in generations if candidates else []:
            entry["genotypes"] = ["21", "10", "00"]
        training = [{"phase": "training", "number": number, "loss": 3.0 / number} for number in (1, 2, 3)]
        found = space.cost(space.decode(genotype))
        trials.append(
            {
                "trial": f"spos-nasbench_macro-seed-{seed}",
                "algorithm": "spos",
                "space": "nasbench_macro",
                "space_config": SPACE,
                "seed": seed,
                "genotype": genotype,
                "macs": found.macs,
                "params": found.params,
                "own_score": score,
                "score": score - 1,
                "history": training + generations,
            }
        )
    (stage.location / "trials.json").write_json(trials)
    best = {name: value for name, value in trials[0].items() if name != "history"}
    stage.done_file.write_json({**best, "max_macs": 100_000, "seconds": 30.0})
    return stage


def add_network(run, name, genotype, synthesis, space):
    stage = run.stage(name, {"upstream": {"synthesis": synthesis.key}, "genotype": genotype})
    stage.begin()
    run.set_latest([stage])
    history = [
        {"loss": 2.0 / epoch, "validation_loss": 20.0 / epoch, "validation_agreement": 1 - 0.5 / epoch}
        for epoch in (1, 2, 3)
    ]
    (stage.location / "history.json").write_json(history)
    network = {"space": SPACE, "genotype": genotype, "image_shape": SHAPE, "num_classes": NUM_CLASSES}
    (stage.location / "network.json").write_json(network)
    cost = space.cost(space.decode(genotype))
    stage.done_file.write_json(
        {
            "space_config": SPACE,
            "genotype": genotype,
            "macs": cost.macs,
            "params": cost.params,
            "seconds": 5.0,
            **history[-1],
        }
    )
    return stage


def add_evaluation(run, networks, dataset="ten pictures"):
    stage = run.stage("evaluation", {"networks": {name: s.location.name for name, s in networks.items()}})
    stage.begin()
    run.set_latest([stage])
    accuracy = {"teacher": 0.9, "retraining": 0.8, "baseline": 0.7}
    rows = {
        name: {
            "architecture": f"arch-{name}",
            "accuracy": accuracy[name],
            "params": 2000 - 500 * i,
            "macs": 4000 - 1000 * i,
        }
        for i, name in enumerate(["teacher", *networks])
    }
    stage.done_file.write_json({"dataset": dataset, "images": 10, "networks": rows, "seconds": 0.5})
    return stage


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run")
    run.location.make_dir()
    (run.location / "experiment.yaml").write_bytes(CONFIG.encode())
    return run


@pytest.fixture
def finished_run(run, space):
    synthesis = add_synthesis(run)
    add_search(run, synthesis, space)
    networks = {
        "retraining": add_network(run, "retraining", SEARCHED, synthesis, space),
        "baseline": add_network(run, "baseline", RANDOM, synthesis, space),
    }
    add_evaluation(run, networks)
    return run


@pytest.fixture
def add():
    """The functions above, by stage."""
    return SimpleNamespace(
        synthesis=add_synthesis,
        search=add_search,
        network=add_network,
        evaluation=add_evaluation,
        searched=SEARCHED,
        random=RANDOM,
    )
