"""`dfnas benchmark`: rankings of the search algorithms beside a table of true accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfnas_ray.algorithms.config import ALGORITHM_CONFIGS, Trial, distinct
from dfnas_ray.errors import ConfigError
from dfnas_ray.experiment import ExperimentConfig
from dfnas_ray.pipeline import Outcome, Pipeline
from dfnas_ray.ranking.config import BenchmarkConfig, Source, is_data_free
from dfnas_ray.ranking.sources import SetSize, real_canvases
from dfnas_ray.ranking.statistics import LEVEL, Agreement, Estimate, draw_resamples, measure_agreement
from dfnas_ray.ranking.table import BenchmarkTable, read_table
from dfnas_ray.search_spaces.base import SearchSpace
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import StageDir
from dfnas_ray.synthesis.checks import check_synthesis

if TYPE_CHECKING:
    from dfnas_ray.distributed.ranking import Ranking

STAGE = "benchmark"
BASELINE = "parameters"
_TRIAL_SEED = 0  # with the root seed of the experiment, an algorithm trains as in the search's first trial

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plan:
    """What a benchmark is to do, checked as far as it can be without the teacher.

    Attributes:
        table: All rows.
        sample: The architectures to rank.
    """

    config: BenchmarkConfig
    table: BenchmarkTable
    sample: BenchmarkTable


@dataclass(frozen=True)
class Contender:
    """One algorithm on one source of images, or a baseline, which needs neither.

    Attributes:
        label: The algorithm's, or the baseline's name.
        source: None if images do not matter.
        algorithm: Its settings; None for a baseline.
    """

    label: str
    source: Source | None = None
    algorithm: Any = None

    @property
    def title(self) -> str:
        """What a reader calls it: spos on synthetic."""
        if self.source is None:
            return self.label
        return f"{self.label} on {self.source}" + ("" if is_data_free(self.source) else " (not data-free)")


def plan(config: ExperimentConfig) -> Plan:
    """Check the settings and the table, and draw the sample.

    Raises:
        ConfigError: there is no benchmark section, an algorithm cannot rank, or settings do not fit the table.
        DatasetError: the table cannot be used.
    """
    benchmark = config.benchmark
    if benchmark is None:
        raise ConfigError(
            "The experiment has no benchmark section. Give a table of true accuracies with --table FILE, or add, for "
            "instance\nbenchmark:\n  table: nasbench201_cifar10.csv\n  architectures: 100"
        )
    if len(config.search.space) > 1:
        raise ConfigError(
            f"search.space lists {len(config.search.space)} spaces, and a benchmark's table belongs to one. Leave the "
            "table's space alone there."
        )
    for algorithm in config.search.algorithm:
        if algorithm.cannot_rank:
            able = ", ".join(kind for kind, member in ALGORITHM_CONFIGS.items() if not member.cannot_rank)
            raise ConfigError(
                f"The algorithm {algorithm.kind} cannot rank given architectures: {algorithm.cannot_rank}. "
                f"search.algorithm must name those that can: {able}."
            )
    space = config.search.space[0]
    table = read_table(benchmark, space.space(*space.native_input))
    if benchmark.real is not None and "real" in benchmark.sources:
        benchmark.real.open("benchmark.real")  # finds the files; no image is read
    return Plan(benchmark, table, table.sample(benchmark, config.seed))


def benchmark(pipeline: Pipeline) -> Outcome:
    """Rank the table's architectures by every algorithm, compare, and write figures and report.

    Raises:
        DfnasError: as `plan`, or a ranking failed.
    """
    planned = plan(pipeline.config)
    check_synthesis(pipeline.teacher, pipeline.config.synthesis)
    stage = pipeline.run_dir.stage(STAGE, _inputs(pipeline, planned))
    outcome = pipeline.finish(stage, lambda: _benchmark(pipeline, stage, planned))

    from dfnas_ray.report.benchmark_section import write_figure

    write_figure(outcome.location)
    pipeline.report()
    return outcome


def _contenders(config: ExperimentConfig, planned: Plan) -> list[Contender]:
    """Return every algorithm on every source that it is sensitive to."""
    labels = distinct([algorithm.label for algorithm in config.search.algorithm])
    return [
        Contender(label, source, algorithm)
        for label, algorithm in zip(labels, config.search.algorithm, strict=True)
        for source in (planned.config.sources if algorithm.needs_images else (None,))
    ]


# What it depends on


def _search_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings of search that change what is measured."""
    return config.search.model_dump(mode="json", include={"validation_fraction", "distillation", "precision"})


def _inputs(pipeline: Pipeline, planned: Plan) -> dict[str, Any]:
    config = pipeline.config
    return {
        "upstream": {"synthesis": pipeline.synthesis_stage().key},
        "seed": config.seed,
        "table": planned.table.fingerprint,
        "benchmark": planned.config.model_dump(mode="json", exclude={"table", "chunk_size"}),
        "space": config.search.space[0].model_dump(mode="json"),
        "algorithms": [algorithm.model_dump(mode="json") for algorithm in config.search.algorithm],
        "max_macs": pipeline.max_macs,
        "search": _search_settings(config),
        "threads": config.cluster.search.cpus,
    }


def _ranking_stage(pipeline: Pipeline, planned: Plan, contender: Contender, seed: int) -> StageDir:
    """Return where the measurements of one contender with one root seed are kept.

    They do not depend on the table, nor on the other architectures: another benchmark can use them again.
    """
    config = pipeline.config
    size = SetSize.of(config.synthesis, pipeline.teacher.image_shape)
    images: dict[str, Any] = {"source": contender.source, "images": size.images, "canvas": size.canvas}
    if contender.source == "synthetic":
        images["synthesis"] = pipeline.synthesis_stage(seed).key
    elif contender.source == "real":
        assert planned.config.real is not None
        images["dataset"] = planned.config.real.model_dump(mode="json")
    inputs = {
        "teacher": pipeline.teacher.fingerprint,
        "images": images,
        "seed": seed,
        "space": config.search.space[0].model_dump(mode="json"),
        "algorithm": contender.algorithm.model_dump(mode="json"),
        "max_macs": pipeline.max_macs,
        "search": _search_settings(config),
        "threads": config.cluster.search.cpus,
    }
    if contender.algorithm.measures_population:
        inputs["population"] = planned.sample.fingerprint
    return pipeline.run_dir.stage("ranking", inputs)


# Doing it


def _benchmark(pipeline: Pipeline, stage: StageDir, planned: Plan) -> dict[str, Any]:
    config, sample, space = pipeline.config, planned.sample, pipeline.spaces[0]
    costs = [space.cost(genotype) for genotype in sample.architectures]
    scored: list[tuple[Contender, Array, float | None]] = [
        (Contender(BASELINE), np.array([[cost.params for cost in costs]], dtype=np.float64), None),
        (Contender("macs"), np.array([[cost.macs for cost in costs]], dtype=np.float64), None),
        *_rank(pipeline, planned),
    ]
    resamples = draw_resamples(len(sample), config.seed)
    agreements: list[Agreement] = []
    with pipeline.listener.task("Comparing with the table", len(scored), "ranking") as task:
        for _, scores, _ in scored:
            agreements.append(
                measure_agreement(scores, sample.accuracies, resamples, agreements[0] if agreements else None)
            )
            task.advance_to(len(agreements))
    rows = [
        _describe(contender, agreement, seconds)
        for (contender, _, seconds), agreement in zip(scored, agreements, strict=True)
    ]
    best = max((row for row in rows if row["data_free"]), key=lambda row: row["tau"]["mean"])
    best["best"] = True
    summary = {
        "space": config.search.space[0].kind,
        "architectures": len(sample),
        "table": {
            "rows": len(planned.table),
            "used": planned.config.rows or [0, len(planned.table)],
            "accuracy_column": sample.accuracy_column,
            "best_in_sample": float(sample.accuracies.max()),
        },
        "seeds": list(planned.config.seeds),
        "level": LEVEL,
        "resamples": len(resamples),
    }
    (stage.location / "benchmark.json").write_json({**summary, "rankings": rows})
    _write_scores(stage.location / "scores.parquet", sample, space, planned.config.seeds, scored)
    return {**summary, "rankings": len(rows), "best": best["title"], "tau": best["tau"]["mean"]}


def _rank(pipeline: Pipeline, planned: Plan) -> list[tuple[Contender, Array, float | None]]:
    """Return each contender's scores (S, N), and the seconds of work that one architecture took."""
    from dfnas_ray.distributed import ranking
    from dfnas_ray.distributed.board import ProgressBoard
    from dfnas_ray.distributed.search_trials import SearchJob

    config, resources = pipeline.config, pipeline.config.cluster.search
    seeds, contenders = planned.config.seeds, _contenders(config, planned)
    folders = (
        {seed: pipeline.synthesize(seed).location for seed in seeds} if "synthetic" in planned.config.sources else {}
    )
    pipeline.runtime.check_fits("search", resources)
    teacher = ranking.share(pipeline.teacher)
    size = SetSize.of(config.synthesis, pipeline.teacher.image_shape)
    sources: dict[str, tuple[Source | None, int]] = {}

    @cache
    def image_set(source: Source | None, seed: int) -> Any:
        if source == "synthetic":
            return ranking.synthetic_set(folders[seed])
        if source == "real":
            assert planned.config.real is not None
            canvases = real_canvases(
                planned.config.real.open("benchmark.real"), pipeline.teacher.image_shape, size, seed
            )
            return ranking.labelled_set(teacher, canvases, size)
        return ranking.noise_set(teacher, size, seed)  # also where images do not matter, but have to be there

    rankings: list[Ranking] = []
    for contender in contenders:
        for seed in seeds:
            folder = _ranking_stage(pipeline, planned, contender, seed)
            folder.begin()
            name = f"{contender.title}, seed {seed}"
            sources[name] = (contender.source, seed)
            job = SearchJob(config.search, resources, seed, pipeline.max_macs, folder.location)
            rankings.append(
                ranking.Ranking(name, job, Trial(name, contender.algorithm, config.search.space[0], _TRIAL_SEED))
            )

    def images_of(one: Ranking) -> Any:
        return image_set(*sources[one.name])

    space = pipeline.spaces[0]
    architectures = {space.encode(genotype): genotype for genotype in planned.sample.architectures}
    missing = ranking.num_missing(rankings, list(architectures))
    total = len(rankings) * len(architectures)
    if 0 < missing < total:
        pipeline.listener.say(f"benchmark: {total - missing:,} of {total:,} measurements are there already.")
    if missing:
        board = ProgressBoard()
        workers = pipeline.runtime.room_for(resources)
        with pipeline.listener.task("Measuring", missing, "architecture") as task, board.shown_on(task):
            ranking.measure_all(rankings, architectures, planned.config.chunk_size, workers, teacher, images_of, board)
    scores = ranking.scores_of(rankings, list(architectures), teacher, images_of)
    found: list[tuple[Contender, Array, float | None]] = []
    for number, contender in enumerate(contenders):
        own = scores[number * len(seeds) : (number + 1) * len(seeds)]
        found.append((contender, np.array([s for s, _ in own]), float(np.mean([seconds for _, seconds in own]))))
    return found


def _describe(contender: Contender, agreement: Agreement, seconds: float | None) -> dict[str, Any]:
    return {
        "title": contender.title,
        "ranking": contender.label,
        "images": contender.source,
        "data_free": is_data_free(contender.source),
        "best": False,
        "tau": _numbers(agreement.tau),
        "rho": _numbers(agreement.rho),
        **{f"regret_{top}": _numbers(estimate) for top, estimate in agreement.regret.items()},
        "tau_gain": None if agreement.tau_gain is None else _numbers(agreement.tau_gain),
        "seconds_per_architecture": seconds,
    }


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "deviation": estimate.deviation}


def _write_scores(
    file: Location,
    sample: BenchmarkTable,
    space: SearchSpace,
    seeds: Sequence[int],
    scored: Sequence[tuple[Contender, Array, float | None]],
) -> None:
    """Write architecture, accuracy, and the score of each ranking with each seed, one column each."""
    columns: dict[str, Any] = {
        "architecture": [space.encode(genotype) for genotype in sample.architectures],
        "accuracy": sample.accuracies,
    }
    for contender, scores, _ in scored:
        names = [contender.title]
        if contender.algorithm is not None:
            names = [f"{contender.title}, seed {seed}" for seed in seeds]
        columns.update(zip(names, scores, strict=True))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    file.write_bytes(memoryview(sink.getvalue()))
