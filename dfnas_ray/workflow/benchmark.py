"""Benchmark: rankings of the search algorithms beside a table of true accuracies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfnas_ray import formatting
from dfnas_ray.algorithms.config import ALGORITHMS, distinct
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.errors import ConfigError
from dfnas_ray.ranking.config import BenchmarkConfig, Source
from dfnas_ray.ranking.result import BASELINES, BenchmarkFacts, BenchmarkResult, Interval, RankingRow, TableFacts
from dfnas_ray.ranking.statistics import LEVEL, Agreement, draw_resamples, measure_agreement
from dfnas_ray.ranking.table import BenchmarkTable, read_table, table_uri
from dfnas_ray.search_spaces.base import SearchSpace
from dfnas_ray.search_spaces.contract import build_space
from dfnas_ray.sources.base import draw_all
from dfnas_ray.sources.noise import NoiseSource
from dfnas_ray.sources.real import RealSource
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.workflow.images import ImagesStage, images_of, synthetic_size
from dfnas_ray.workflow.rankings import Rankings, measuring_inputs
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Record, Stage

REAL = "benchmark.real"
"""The name of the real images in error messages."""

Array = np.ndarray[Any, Any]


class BenchmarkRecord(Record, BenchmarkFacts):
    """A finished benchmark.

    Attributes:
        rankings: The number of rankings.
        best: The title of the best data-free ranking.
        tau: Its tau.
    """

    rankings: Count
    best: str
    tau: float

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"{self.best}: tau {self.tau:.3f}"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        return f"{formatting.plural(self.architectures, 'architecture')}, {formatting.plural(self.rankings, 'ranking')}"


@dataclass(frozen=True)
class Plan:
    """The plan of a benchmark, checked as far as possible without the teacher.

    Attributes:
        config: The benchmark section.
        table: All rows of the table.
        sample: The architectures to rank.
    """

    config: BenchmarkConfig
    table: BenchmarkTable
    sample: BenchmarkTable


@dataclass(frozen=True)
class Contender:
    """One algorithm on one source of images, or a baseline, which needs neither.

    Attributes:
        label: The algorithm's label, or the baseline's name.
        source: The source of images; None if images do not matter.
        algorithm: The algorithm's settings; None for a baseline.
    """

    label: str
    source: Source | None = None
    algorithm: Any = None

    @property
    def title(self) -> str:
        """The name for readers, such as "spos on synthetic"."""
        if self.source is None:
            return self.label
        return f"{self.label} on {self.source}" + ("" if self.is_data_free else " (not data-free)")

    @property
    def is_data_free(self) -> bool:
        """Whether it needs none of the data that the teacher was trained on."""
        return self.source != "real"


class Scored(NamedTuple):
    """A contender's scores (seeds, architectures), and the seconds that one architecture took; None for a baseline."""

    contender: Contender
    scores: Array
    seconds: float | None


def benchmark_config(config: ExperimentConfig) -> BenchmarkConfig:
    """Return the benchmark section, checked as far as possible without the table.

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
        RealSource(dataset=benchmark.real).opened(REAL)
    return Plan(benchmark, table, table.sample(benchmark, config.seed))


class Benchmark(Stage[BenchmarkRecord]):
    """The stage that ranks a table's architectures: figures, scores, and measurements for later benchmarks."""

    name = "benchmark"
    title = "Benchmark"
    record = BenchmarkRecord
    uses_code_of = ("synthesis", "search", "benchmark")
    workers = "search"
    has_own_command = True

    def __init__(self, session: Session):
        super().__init__(session)
        self.config, self.plan = session.config, plan(session.config)

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        config, planned = self.config, self.plan
        inputs = {
            **measuring_inputs(self.session),
            "seed": config.seed,
            "table": planned.table.fingerprint,
            "benchmark": planned.config.model_dump(mode="json", exclude={"table", "chunk_size"}),
            "algorithms": {
                label: algorithm.model_dump(mode="json") for label, algorithm in _algorithms(config).items()
            },
        }
        upstream = [self._images(source, config.seed) for source in planned.config.sources if source != "noise"]
        return inputs | {"upstream": {source.name: source.key for source in upstream}}

    def check(self) -> None:
        """See `Stage`."""
        settings = self.config.synthesis
        check_synthesis(self.session.teacher, settings, settings.method)
        for algorithm in self.config.search.algorithm:
            if self.config.cluster.is_inline and algorithm.needs_many_workers and not self.is_done:
                raise ConfigError(algorithm.needs_many_workers)

    def work(self) -> BenchmarkRecord:
        """See `Stage`."""
        config, planned, space = self.config, self.plan, self.session.spaces[0]
        sample = planned.sample
        costs = np.array([space.cost(genotype) for genotype in sample.architectures], dtype=np.float64)  # (N, 2)
        scored = [
            *(Scored(Contender(name), costs[None, :, column], None) for column, name in enumerate(BASELINES)),
            *self._rank(),
        ]
        resamples = draw_resamples(len(sample), config.seed)
        agreements: list[Agreement] = []
        with self.session.listener.task("Comparing with the table", len(scored), "ranking") as task:
            for one in scored:
                baseline = agreements[0] if agreements else None
                agreements.append(measure_agreement(one.scores, sample.accuracies, resamples, baseline))
                task.advance_to(len(agreements))
        rows = [_row(one, agreement) for one, agreement in zip(scored, agreements, strict=True)]
        best = max((row for row in rows if row.data_free), key=lambda row: row.tau.mean)
        rows = [row.model_copy(update={"best": row is best}) for row in rows]
        facts = BenchmarkFacts(
            space=config.search.space[0].kind,
            architectures=len(sample),
            table=TableFacts(
                rows=len(planned.table),
                used=planned.config.rows or (0, len(planned.table)),
                accuracy_column=sample.accuracy_column,
                best_in_sample=float(sample.accuracies.max()),
            ),
            seeds=planned.config.seeds,
            level=LEVEL,
            resamples=len(resamples),
        )
        BenchmarkResult(**dict(facts), rankings=tuple(rows)).write(self.location)
        _write_scores(self.location / "scores.parquet", sample, space, planned.config.seeds, scored)
        return BenchmarkRecord(**dict(facts), rankings=len(rows), best=best.title, tau=best.tau.mean)

    def _rank(self) -> list[Scored]:
        """Measure what is missing, and return each contender's scores."""
        session, planned = self.session, self.plan
        seeds, contenders = planned.config.seeds, _contenders(self.config, planned)
        for seed in seeds:
            for source in dict.fromkeys(contender.source for contender in contenders if contender.source):
                self._images(source, seed).finish()
            session.forget_images()
        image_set, ranked = self._image_sets(), Rankings(self.name, session, planned.sample.architectures)
        for contender in contenders:
            for seed in seeds:
                named = None if contender.source is None else (contender.source, self._images(contender.source, seed))
                seeded = session.variant(self.config.model_copy(update={"seed": seed}))
                images = partial(image_set, contender.source, seed)
                ranked.add(f"{contender.title}, seed {seed}", contender.algorithm, seeded, named, images)
        ranked.measure("Measuring", planned.config.chunk_size)
        scores, scored = ranked.scores(), []
        for contender in contenders:
            own = [scores[f"{contender.title}, seed {seed}"] for seed in seeds]
            seconds = float(np.mean([one.seconds for one in own]))
            scored.append(Scored(contender, np.array([one.scores for one in own]), seconds))
        return scored

    def _image_sets(self) -> Callable[[Source | None, int], Shared[SyntheticImages]]:
        """Return a function that returns the images of a source and a root seed."""
        session, executor = self.session, self.session.executor
        token = synthetic_size(session).token

        def image_set(source: Source | None, seed: int) -> Shared[SyntheticImages]:
            if source is None:
                draw = partial(executor.compute, draw_all, session.shared_teacher, NoiseSource(), token, seed, "")
                return session.kept(f"noise of seed {seed}", draw)
            return self._images(source, seed).images(executor)

        return image_set

    def _images(self, source: Source, seed: int) -> ImagesStage:
        return images_of(self.session, self.plan.config.source(source), REAL, seed)


def _algorithms(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings of the algorithms by label. Labels differ from each other and from the baselines' names."""
    labels = distinct([*BASELINES, *(algorithm.label for algorithm in config.search.algorithm)])
    return dict(zip(labels[len(BASELINES) :], config.search.algorithm, strict=True))


def _contenders(config: ExperimentConfig, planned: Plan) -> list[Contender]:
    """Return every algorithm on every source, or on none if it needs no images."""
    return [
        Contender(label, source, algorithm)
        for label, algorithm in _algorithms(config).items()
        for source in (planned.config.sources if algorithm.needs_images else (None,))
    ]


def _row(scored: Scored, agreement: Agreement) -> RankingRow:
    contender = scored.contender
    return RankingRow(
        title=contender.title,
        ranking=contender.label,
        images=contender.source,
        data_free=contender.is_data_free,
        best=False,
        tau=Interval.of(agreement.tau),
        rho=Interval.of(agreement.rho),
        regret_1=Interval.of(agreement.regret[1]),
        regret_5=Interval.of(agreement.regret[5]),
        tau_gain=None if agreement.tau_gain is None else Interval.of(agreement.tau_gain),
        seconds_per_architecture=scored.seconds,
    )


def _write_scores(
    file: Location,
    sample: BenchmarkTable,
    space: SearchSpace,
    seeds: Sequence[int],
    scored: Sequence[Scored],
) -> None:
    """Write one column each for architecture, accuracy, and the scores of every ranking with every seed."""
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
