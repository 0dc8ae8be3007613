"""`dfnas benchmark`: rankings of the search algorithms beside a table of true accuracies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfnas_ray.algorithms.config import ALGORITHMS, Trial, distinct
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.errors import ConfigError
from dfnas_ray.ranking.config import BenchmarkConfig, Source, is_data_free
from dfnas_ray.ranking.sources import SetSize, real_canvases
from dfnas_ray.ranking.statistics import LEVEL, Agreement, Estimate, draw_resamples, measure_agreement
from dfnas_ray.ranking.table import BenchmarkTable, read_table, table_uri
from dfnas_ray.search_spaces.base import SearchSpace
from dfnas_ray.search_spaces.contract import build_space
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import StageDir, fingerprint
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.workflow.pipeline import Outcome, Pipeline

if TYPE_CHECKING:
    from dfnas_ray.execution.ray.ranking import Ranking

STAGE = "benchmark"
BASELINES = ("parameters", "macs")
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


class Scored(NamedTuple):
    """A contender's scores (S, N), and the seconds of work that one architecture took; None for a baseline."""

    contender: Contender
    scores: Array
    seconds: float | None


def benchmark_config(config: ExperimentConfig) -> BenchmarkConfig:
    """Return the benchmark section, checked as far as it can be without the table.

    Raises:
        ConfigError: there is none, it names no table, there are several spaces, or an algorithm cannot rank.
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
            able = ", ".join(member.kind for member in ALGORITHMS.members() if not member.code.cannot_rank)
            raise ConfigError(
                f"The algorithm {algorithm.kind} cannot rank given architectures: {algorithm.cannot_rank}. "
                f"search.algorithm must name those that can: {able}."
            )
    table_uri(benchmark)
    return benchmark


def plan(config: ExperimentConfig) -> Plan:
    """Check the settings and the table, and draw the sample.

    Raises:
        ConfigError: as `benchmark_config`, or settings do not fit the table.
        DatasetError: the table cannot be used.
    """
    benchmark = benchmark_config(config)
    space = config.search.space[0]
    table = read_table(benchmark, build_space(space, *space.native_input))
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
    if not stage.is_done:
        pipeline.runtime.check_fits("search", pipeline.config.cluster.search)
    outcome = pipeline.finish(stage, lambda: _benchmark(pipeline, stage, planned))

    from dfnas_ray.report.benchmark_section import write_figure

    write_figure(outcome.location)
    pipeline.report()
    return outcome


def _algorithms(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings of the algorithms by labels that are different, from the baselines' names, too."""
    labels = distinct([*BASELINES, *(algorithm.label for algorithm in config.search.algorithm)])
    return dict(zip(labels[len(BASELINES) :], config.search.algorithm, strict=True))


def _contenders(config: ExperimentConfig, planned: Plan) -> list[Contender]:
    """Return every algorithm on every source that it is sensitive to."""
    return [
        Contender(label, source, algorithm)
        for label, algorithm in _algorithms(config).items()
        for source in (planned.config.sources if algorithm.needs_images else (None,))
    ]


# What it depends on


def _common_inputs(pipeline: Pipeline) -> dict[str, Any]:
    """Return what all measurements depend on."""
    config = pipeline.config
    size = SetSize.of(config.synthesis, pipeline.teacher.image_shape)
    return {
        "teacher": pipeline.teacher.fingerprint,
        "images": {"number": size.images, "canvas": size.canvas},
        "space": config.search.space[0].model_dump(mode="json"),
        "max_macs": pipeline.max_macs,
        "search": config.search.model_dump(mode="json", include={"validation_fraction", "distillation", "precision"}),
        "threads": config.cluster.search.cpus,
    }


def _inputs(pipeline: Pipeline, planned: Plan) -> dict[str, Any]:
    config = pipeline.config
    inputs = {
        **_common_inputs(pipeline),
        "seed": config.seed,
        "table": planned.table.fingerprint,
        "benchmark": planned.config.model_dump(mode="json", exclude={"table", "chunk_size"}),
        "algorithms": {label: algorithm.model_dump(mode="json") for label, algorithm in _algorithms(config).items()},
    }
    if "synthetic" in planned.config.sources:
        inputs["upstream"] = {"synthesis": pipeline.synthesis_stage().key}
    if planned.config.real is not None and "real" in planned.config.sources:
        inputs["files"] = planned.config.real.open("benchmark.real").fingerprint
    return inputs


def _ranking_stage(pipeline: Pipeline, planned: Plan, contender: Contender, seed: int) -> StageDir:
    """Return where the measurements of one contender with one root seed are kept.

    They depend neither on the table nor on each other: another benchmark can use them again.
    """
    inputs = {
        **_common_inputs(pipeline),
        "seed": seed,
        "source": contender.source,
        "algorithm": contender.algorithm.measuring_settings(),
    }
    if contender.source == "synthetic":
        inputs["upstream"] = {"synthesis": pipeline.synthesis_stage(seed).key}
    elif contender.source == "real":
        assert planned.config.real is not None
        inputs["real"] = planned.config.real.model_dump(mode="json")
        inputs["files"] = planned.config.real.open("benchmark.real").fingerprint
    if contender.algorithm.measures_population:
        inputs["population"] = fingerprint(planned.sample.architectures)
    return pipeline.run_dir.stage("ranking", inputs)


# Doing it


def _benchmark(pipeline: Pipeline, stage: StageDir, planned: Plan) -> dict[str, Any]:
    config, sample, space = pipeline.config, planned.sample, pipeline.spaces[0]
    costs = np.array([space.cost(genotype) for genotype in sample.architectures], dtype=np.float64)  # (N, 2)
    scored = [
        *(Scored(Contender(name), costs[None, :, column], None) for column, name in enumerate(BASELINES)),
        *_rank(pipeline, planned),
    ]
    resamples = draw_resamples(len(sample), config.seed)
    agreements: list[Agreement] = []
    with pipeline.listener.task("Comparing with the table", len(scored), "ranking") as task:
        for one in scored:
            baseline = agreements[0] if agreements else None
            agreements.append(measure_agreement(one.scores, sample.accuracies, resamples, baseline))
            task.advance_to(len(agreements))
    rows = [_describe(one, agreement) for one, agreement in zip(scored, agreements, strict=True)]
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


def _rank(pipeline: Pipeline, planned: Plan) -> list[Scored]:
    """Measure what is missing, and return each contender's scores."""
    from dfnas_ray.execution.ray import ranking
    from dfnas_ray.execution.ray.board import ProgressBoard
    from dfnas_ray.execution.ray.search_trials import SearchJob

    config, resources = pipeline.config, pipeline.config.cluster.search
    seeds, contenders = planned.config.seeds, _contenders(config, planned)
    if "synthetic" in planned.config.sources:
        for seed in seeds:
            pipeline.synthesize(seed)
    teacher = ranking.share(pipeline.teacher)
    image_set = _image_sets(pipeline, planned, teacher)

    sets: dict[Ranking, tuple[Source | None, int]] = {}
    for contender in contenders:
        for seed in seeds:
            folder = _ranking_stage(pipeline, planned, contender, seed)
            folder.begin()
            name = f"{contender.title}, seed {seed}"
            job = SearchJob(config.search, resources, seed, pipeline.max_macs, folder.location)
            trial = Trial(name, contender.algorithm, config.search.space[0], _TRIAL_SEED)
            sets[ranking.Ranking(name, job, trial)] = (contender.source, seed)

    def images_of(one: Ranking) -> Any:
        return image_set(*sets[one])

    space = pipeline.spaces[0]
    architectures = {space.encode(genotype): genotype for genotype in planned.sample.architectures}
    rankings = {one: ranking.Recorded.read(one) for one in sets}
    missing = sum(len(recorded.missing(architectures)) for recorded in rankings.values())
    total = len(rankings) * len(architectures)
    if 0 < missing < total:
        pipeline.listener.say(f"benchmark: {total - missing:,} of {total:,} measurements are there already.")
    if missing:
        board, workers = ProgressBoard(), pipeline.runtime.room_for(resources)
        with pipeline.listener.task("Measuring", missing, "architecture") as task, board.shown_on(task):
            ranking.measure_all(rankings, architectures, planned.config.chunk_size, workers, teacher, images_of, board)
    scores = ranking.scores_of(rankings, list(architectures), teacher, images_of)
    scored = []
    for number, contender in enumerate(contenders):
        own = scores[number * len(seeds) : (number + 1) * len(seeds)]
        seconds = float(np.mean([one.seconds for one in own]))
        scored.append(Scored(contender, np.array([one.scores for one in own]), seconds))
    return scored


def _image_sets(pipeline: Pipeline, planned: Plan, teacher: Any) -> Callable[[Source | None, int], Any]:
    """Return a function that puts the images of a source and a root seed into the object store, each once."""
    from dfnas_ray.execution.ray import ranking

    image_shape = pipeline.teacher.image_shape
    size = SetSize.of(pipeline.config.synthesis, image_shape)

    @cache
    def image_set(source: Source | None, seed: int) -> Any:
        if source == "synthetic":
            return ranking.synthetic_set(pipeline.synthesis_stage(seed).location)
        if source == "real":
            assert planned.config.real is not None
            dataset = planned.config.real.open("benchmark.real")
            return ranking.labelled_set(teacher, real_canvases(dataset, image_shape, size, seed), size)
        return ranking.noise_set(teacher, size.token if source is None else size, seed)

    return image_set


def _describe(scored: Scored, agreement: Agreement) -> dict[str, Any]:
    contender = scored.contender
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
        "seconds_per_architecture": scored.seconds,
    }


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "deviation": estimate.deviation}


def _write_scores(
    file: Location,
    sample: BenchmarkTable,
    space: SearchSpace,
    seeds: Sequence[int],
    scored: Sequence[Scored],
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
