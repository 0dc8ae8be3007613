"""A run directory made by hand with the storage API: what the stages would have left, in miniature."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfnas_ray.algorithms.selection import ComparedTrial, ComparedTrials, Finalist, HistoryPoint
from dfnas_ray.comparison.config import ComparisonConfig
from dfnas_ray.comparison.result import ComparisonResult, FoundArchitecture
from dfnas_ray.comparison.rows import rows_of
from dfnas_ray.ranking.result import BenchmarkFacts, BenchmarkResult, Interval, RankingRow, TableFacts
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.storage.shards import ShardInfo, encode_shard, manifest_entry, shard_name
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.quality import QualityReport
from dfnas_ray.teachers.facts import TeacherFacts
from dfnas_ray.training.confusion import write_confusion
from dfnas_ray.training.export import NetworkDescription
from dfnas_ray.workflow.benchmark import BenchmarkRecord
from dfnas_ray.workflow.comparison import ComparisonRecord
from dfnas_ray.workflow.evaluation import EvaluationRecord, MeasuredNetwork
from dfnas_ray.workflow.retraining import History, RetrainingRecord
from dfnas_ray.workflow.search import SearchRecord
from dfnas_ray.workflow.synthesis import SynthesisRecord

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


def begin(run, name, inputs):
    """Begin a stage, and make it the one that reports show."""
    stage = run.stage(name, inputs)
    stage.begin()
    run.set_latest([stage])
    return stage


def finish(stage, record):
    """Leave a stage's record, as the stage does."""
    stage.done_file.write_model(record, exclude_none=True)
    return stage


def add_synthesis(
    run, num_classes=NUM_CLASSES, rounds=2, per_round=12, canvas=(1, 9, 9), num_shards=2, teacher="digits", **facts
):
    rng = np.random.default_rng(0)
    config = SynthesisConfig(
        num_shards=num_shards, images_per_shard=per_round, canvas_margin=1,
        method={
            "kind": "inversion", "batch_size": per_round, "rounds": rounds, "warmup_steps": 1,
            "scales": [{"scale": 2, "steps": 3}, {"scale": 1, "steps": 3}],
        },
    )  # fmt: skip
    inputs = {"teacher": "f" * 64, "seed": 7, "synthesis": config.model_dump(mode="json")}
    stage = begin(run, "synthesis", inputs)
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
        entries.append(manifest_entry(shard, data, num_rows))
    Manifest(key=stage.key, shards=entries).write(stage.location)
    quality = {"confidence": 0.8125, "entropy": 0.5, "agreement": 0.75, "domain_gap": 0.0123456789}
    QualityReport(overall=quality, rounds=dict.fromkeys(range(rounds), quality)).write(stage.location)
    shape = (canvas[0], canvas[1] - 1, canvas[2] - 1)
    record = SynthesisRecord(
        images=num_shards * rounds * per_round, shards=num_shards, made_now=num_shards, actors=2, bytes=123_456,
        quality=quality, seconds=12.0, finished_at=1_795_470_000.0, machine={"threads": 2, "torch": "2"},
        teacher=TeacherFacts(name=teacher, params=2000, macs=4000, image_shape=shape, num_classes=num_classes),
    )  # fmt: skip
    return finish(stage, record.model_copy(update=facts))


def add_search(run, synthesis, space, candidates=False):
    settings = {"space": SPACE, "max_macs": "50%", "algorithm": {"kind": "spos"}}
    stage = begin(run, "search", {"upstream": {"synthesis": synthesis.key}, "search": settings})
    trials = []
    for seed, genotype, score in ((0, SEARCHED, -1.25), (1, RANDOM, -1.5)):
        texts = ("21", "10", "00") if candidates else None
        scores = (score, score - 0.5, float("-inf"))
        generations = [
            HistoryPoint(phase="sampling", number=number, best=score, scores=scores, genotypes=texts)
            for number in (1, 2)
        ]
        training = [HistoryPoint(phase="training", number=number, loss=3.0 / number) for number in (1, 2, 3)]
        found = space.cost(space.decode(genotype))
        trials.append(
            ComparedTrial(
                trial=f"spos-nasbench_macro-seed-{seed}", algorithm="spos", space="nasbench_macro", space_config=SPACE,
                seed=seed, genotype=genotype, macs=found.macs, params=found.params, own_score=score, score=score - 1,
                finalists=(Finalist(genotype=genotype),), history=(*training, *generations),
            )
        )  # fmt: skip
    ComparedTrials(tuple(trials)).write(stage.location)
    best = trials[0].model_dump(exclude={"history", "arrivals"})
    summaries = tuple(trial.summary() for trial in trials)
    return finish(stage, SearchRecord(**best, max_macs=100_000, seconds=30.0, trials=summaries))


def add_network(run, name, genotype, synthesis, space):
    stage = begin(run, name, {"upstream": {"synthesis": synthesis.key}, "genotype": genotype})
    history = [
        {"loss": 2.0 / epoch, "validation_loss": 20.0 / epoch, "validation_agreement": 1 - 0.5 / epoch}
        for epoch in (1, 2, 3)
    ]
    History(tuple(history)).write(stage.location)
    NetworkDescription(
        space=SPACE, genotype=genotype, image_shape=SHAPE, num_classes=NUM_CLASSES, mean=(0.5,), std=(0.25,)
    ).write(stage.location)
    cost = space.cost(space.decode(genotype))
    return finish(
        stage,
        RetrainingRecord(
            space_config=SPACE, genotype=genotype, macs=cost.macs, params=cost.params, seconds=5.0, **history[-1]
        ),
    )


def add_evaluation(run, networks, dataset="ten pictures"):
    stage = begin(run, "evaluation", {"networks": {name: s.location.name for name, s in networks.items()}})
    accuracy = {"teacher": 0.9, "retraining": 0.8, "baseline": 0.7}
    correct = {"teacher": (6, 3, 0), "retraining": (6, 2, 0), "baseline": (5, 2, 0)}
    confusion = {
        name: np.array([[right[0], 6 - right[0], 0], [0, right[1], 4 - right[1]], [0, 0, 0]])
        for name, right in correct.items()
    }
    write_confusion(stage.location, {name: confusion[name] for name in ("teacher", *networks)}, None)
    rows = {
        name: MeasuredNetwork(
            architecture=f"arch-{name}",
            accuracy=accuracy[name],
            params=2000 - 500 * i,
            macs=4000 - 1000 * i,
            correct=correct[name],
        )
        for i, name in enumerate(["teacher", *networks])
    }
    return finish(
        stage, EvaluationRecord(dataset=dataset, images=10, networks=rows, images_of_class=(6, 4, 0), seconds=0.5)
    )


def figures(mean, seeds):
    return Interval(mean=mean, low=mean - 0.05, high=mean + 0.05, deviation=0.0123, per_seed=(mean,) * seeds)


def ranking(title, images, tau, **changes):
    seeds = 1 if images is None else 2
    row = RankingRow(
        title=title, ranking=title.split(" on ")[0], images=images, data_free=images != "real", best=False,
        tau=figures(tau, seeds), rho=figures(tau + 0.1, seeds), regret_1=figures(1.25, seeds),
        regret_5=figures(1.25, seeds), tau_gain=figures(0.01, seeds),
        seconds_per_architecture=None if images is None else 1.5,
    )  # fmt: skip
    return row.model_copy(update=changes)


RANKINGS = (
    ranking("parameters", None, 0.5, tau_gain=None),
    ranking("spos on synthetic", "synthetic", 0.6, best=True),
    ranking("spos on real (not data-free)", "real", 0.7),
)


def add_benchmark(run, *rows, count=30):
    stage = begin(run, "benchmark", {"seed": 7})
    facts = BenchmarkFacts(
        space="nasbench_macro", architectures=count, seeds=(0, 1), level=0.95, resamples=1000,
        table=TableFacts(rows=50, used=(0, 40), accuracy_column="accuracy", best_in_sample=93.0),
    )  # fmt: skip
    result = BenchmarkResult(**dict(facts), rankings=rows)
    result.write(stage.location)
    rng = np.random.default_rng(0)
    columns = {"architecture": [f"{n}" for n in range(count)], "accuracy": rng.normal(90, 1, count)}
    for one in rows:
        names = [one.title] if one.images is None else [f"{one.title}, seed {seed}" for seed in (0, 1)]
        columns |= {name: np.where(np.arange(count) == 3, np.nan, rng.normal(size=count)) for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    (stage.location / "scores.parquet").write_bytes(memoryview(sink.getvalue()))
    best, tau = result.best.title, result.best.tau.mean
    return finish(stage, BenchmarkRecord(**dict(facts), rankings=len(rows), best=best, tau=tau, seconds=12.0))


def add_comparison(run):
    stage = begin(run, "comparison", {"comparison": {}})
    config = ComparisonConfig(variants={"real": {}, "noise": {"search.images": "noise"}}, seeds=(0, 1))
    found = [
        FoundArchitecture(
            variant=name, seed=seed, algorithm="spos", genotype="00", macs=1, accuracy=90 + seed, random_mean=80.0, random=3
        )
        for name in config.variants
        for seed in config.seeds
    ]  # fmt: skip
    rows = tuple(rows_of(config, {"real": False, "noise": True}, found, None))
    ComparisonResult(
        reference="real", variants=dict(config.variants), seeds=(0, 1), judged_by="the table", rows=rows, found=tuple(found)
    ).write(stage.location)  # fmt: skip
    return finish(stage, ComparisonRecord(variants=2, seeds=2, searches=4, judged_by="the table", seconds=12.0))


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
        benchmark=add_benchmark,
        comparison=add_comparison,
        ranking=ranking,
        rankings=RANKINGS,
        searched=SEARCHED,
        random=RANDOM,
    )
