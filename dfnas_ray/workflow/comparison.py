"""Comparison: the same search with different settings and several seeds, and the worth of its results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch

from dfnas_ray import formatting
from dfnas_ray.algorithms.selection import TrialSummary
from dfnas_ray.comparison.config import ComparisonConfig
from dfnas_ray.comparison.result import ComparisonResult, FoundArchitecture
from dfnas_ray.comparison.rows import rows_of
from dfnas_ray.comparison.statistics import mcnemar
from dfnas_ray.config.experiment import ExperimentConfig, evaluation_dataset, make_variant
from dfnas_ray.datasets.base import open_dataset
from dfnas_ray.errors import ConfigError
from dfnas_ray.ranking.table import BenchmarkTable, read_table
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.search_spaces.contract import build_space
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.run_dir import fingerprint
from dfnas_ray.training.evaluation import Guesses, guess_classes
from dfnas_ray.training.export import load_network
from dfnas_ray.workflow.evaluation import check_dataset
from dfnas_ray.workflow.images import ImagesStage, images_of
from dfnas_ray.workflow.ranked_variants import label_of, rank_variants
from dfnas_ray.workflow.retraining import ComparedNetwork
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.side_by_side import search_side_by_side, train_side_by_side
from dfnas_ray.workflow.stage import Record, Stage

_ALIKE = 0.1  # relative difference in MACs, as in `Architecture.random_alike`
_POINTS = 100.0

Cell: TypeAlias = tuple[str, int]
"""A variant's name and a root seed."""


class ComparisonRecord(Record):
    """A finished comparison.

    Attributes:
        searches: The number of searches.
        judged_by: The origin of the accuracies.
    """

    variants: Count
    seeds: Count
    searches: Count
    judged_by: str

    @property
    def headline(self) -> str:
        """See `Record`."""
        return f"{formatting.plural(self.variants, 'variant')}, {formatting.plural(self.seeds, 'seed')}"

    def detail(self, folder: Location) -> str:
        """See `Record`."""
        return f"{formatting.plural(self.searches, 'search', 'searches')}, judged by {self.judged_by}"


def comparison_config(config: ExperimentConfig) -> ComparisonConfig:
    """Return the comparison section.

    Raises:
        ConfigError: there is no such section, or what it needs is missing.
    """
    comparison = config.comparison
    if comparison is None:
        raise ConfigError(
            "The experiment has no comparison section. Add, for instance\ncomparison:\n  variants:\n    synthetic: {}\n"
            "    noise: {search.images: noise}"
        )
    table = config.benchmark is not None and config.benchmark.table is not None
    if "ranking" in (comparison.measures or ()) and not table:
        raise ConfigError("comparison.measures: ranking needs the true accuracies of a table: benchmark.table.")
    if table and len(config.search.space) > 1:
        raise ConfigError(
            f"search.space lists {len(config.search.space)} spaces, and a benchmark's table belongs to one. Leave the "
            "table's space alone there, or leave benchmark.table out."
        )
    if not table:
        evaluation_dataset(config)
    return comparison


@dataclass
class _Cells:
    """The results of all variants with all seeds, before they are judged.

    Attributes:
        searches: The trials of each cell.
        guesses: The guesses of every retrained network on the evaluation's images; None with a table.
        names: The names in ``guesses`` of the architecture that was found and of random ones, by cell and algorithm.
    """

    searches: dict[Cell, tuple[TrialSummary, ...]]
    guesses: Guesses | None
    names: dict[tuple[Cell, str], list[str]]


class VariantComparison(Stage[ComparisonRecord]):
    """The stage that measures all variants, and their differences from the reference."""

    name = "comparison"
    title = "Comparison"
    record = ComparisonRecord
    workers = "search"
    has_own_command = True

    def __init__(self, session: Session):
        super().__init__(session)
        self.config = comparison_config(session.given)
        self._sessions: dict[Cell, Session] = {}

    # Variants and inputs

    @property
    def cells(self) -> Iterator[Cell]:
        """Every variant with every seed, seed by seed, so that first results come early."""
        return ((variant, seed) for seed in self.config.seeds for variant in self.config.variants)

    def session_of(self, cell: Cell) -> Session:
        """Return the session of a variant with a seed."""
        if cell not in self._sessions:
            self._sessions[cell] = self.session.variant(make_variant(self.session.given, *cell))
        return self._sessions[cell]

    @cached_property
    def table(self) -> BenchmarkTable | None:
        """All rows of the table; None if there is no table."""
        benchmark = self.session.given.benchmark
        if benchmark is None or benchmark.table is None:
            return None
        space = self.session.given.search.space[0]
        return read_table(benchmark, build_space(space, *space.native_input))

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what is measured."""
        return self.config.measures or (("search",) if self.table is None else ("search", "ranking"))

    @property
    def num_ranked(self) -> int:
        """Architectures of the table that are ranked."""
        benchmark = self.session.given.benchmark
        if self.table is None or benchmark is None or "ranking" not in self.measures:
            return 0
        return len(self.table.sample(benchmark, self.session.given.seed))

    def inputs(self) -> JsonObject:
        """See `Stage`."""
        session = self.session
        searches = {_text(cell): self._search(cell).key for cell in self.cells}
        inputs: JsonObject = {
            "comparison": self.config.model_dump(mode="json", exclude={"margins"}),
            "synthesis": session.config.synthesis.model_dump(mode="json"),
            "search": session.config.search.settings,
            "searches": fingerprint(searches),
            "margins": self.config.margins.model_dump(mode="json"),
        }
        if self.table is not None:
            benchmark = session.given.benchmark
            assert benchmark is not None
            chosen = benchmark.model_dump(mode="json", include={"rows", "architectures"})
            if "ranking" in self.measures:
                chosen["seed"] = session.given.seed  # of the sample and the resamples
            return inputs | {"table": self.table.fingerprint, "benchmark": chosen}
        dataset, keyed = evaluation_dataset(session.config), session.teacher.resizing.keyed
        trained = {
            name: [one.config.retraining.settings, self.source(one, "retraining.images").key]
            for name, one in ((_text(cell), self.session_of(cell)) for cell in self.cells)
        }
        return inputs | {
            "trained": fingerprint(trained),
            "evaluation": [dataset.model_dump(mode="json"), keyed(open_dataset(dataset).fingerprint)],
        }

    def check(self) -> None:
        """Find errors in every variant that would occur later, before the first search."""
        if self.table is not None:
            self._check_table(self.table)
        for cell in self.cells:
            session = self.session_of(cell)
            self.source(session, "search.images").check()
            self._search(cell).check()
            if self.table is None:
                self.source(session, "retraining.images").check()
            elif "ranking" in self.measures:
                self._check_rankings(session)
        if self.table is None:
            check_dataset(open_dataset(evaluation_dataset(self.session.config)), self.session.teacher)

    def _check_table(self, table: BenchmarkTable) -> None:
        if (highest := float(table.accuracies.max())) <= 1:
            raise ConfigError(
                f"No accuracy in the column {table.accuracy_column!r} of benchmark.table is above {highest:g}: these look like "
                "shares of 1. A comparison and its margins are in percent; multiply the column by 100."
            )
        own = self.session.given.search.space
        for variant in self.config.variants:
            if self.session_of((variant, self.config.seeds[0])).config.search.space != own:
                raise ConfigError(
                    f"comparison.variants.{variant} has another search.space than the experiment, and benchmark.table knows only "
                    "the experiment's. Leave the space alone there, or leave benchmark.table out."
                )

    def _check_rankings(self, session: Session) -> None:
        able = [algorithm.kind for algorithm in session.config.search.algorithm if not algorithm.cannot_rank]
        if not able and self.measures == ("ranking",):
            raise ConfigError(
                "comparison.measures: ranking needs an algorithm that can rank given architectures, such as spos or "
                "zero_cost, in search.algorithm."
            )

    def work(self) -> ComparisonRecord:
        """See `Stage`."""
        given = self.session.given
        found = self._judge(self._run_searches()) if "search" in self.measures else []
        ranked = None
        if "ranking" in self.measures:
            assert self.table is not None
            assert given.benchmark is not None
            ranked = rank_variants(self, self.table.sample(given.benchmark, given.seed), given.benchmark.chunk_size)
        free = {name: self._is_data_free(self.session_of((name, given.seed)).config) for name in self.config.variants}
        result = ComparisonResult(
            reference=self.config.compared_with,
            variants=dict(self.config.variants),
            seeds=self.config.seeds,
            judged_by="the table" if self.table is not None else "retraining",
            architectures=ranked.architectures if ranked is not None else 0,
            rows=tuple(rows_of(self.config, free, found, ranked)),
            found=tuple(found),
            missing=tuple(sorted({one.genotype for one in found if one.accuracy is None})),
        )
        result.write(self.location)
        return ComparisonRecord(
            variants=len(self.config.variants),
            seeds=len(self.config.seeds),
            searches=len(found),
            judged_by=result.judged_by,
        )

    def _is_data_free(self, config: ExperimentConfig) -> bool:
        """Return whether a variant uses no real images, apart from those that judge it."""
        return config.is_data_free if self.table is None else config.search.images.is_data_free

    # Searches and their results

    def source(self, session: Session, setting: str) -> ImagesStage:
        """Return the stage that makes the images of a variant's search or retraining."""
        section = session.config.search if setting == "search.images" else session.config.retraining
        return images_of(session, section.images, setting)

    def _search(self, cell: Cell) -> Search:
        session = self.session_of(cell)
        return Search(session, self.source(session, "search.images"))

    def _run_searches(self) -> _Cells:
        """Run every search that is not finished, and without a table retrain the architectures that were found."""
        searches: dict[Cell, tuple[TrialSummary, ...]] = {}
        with self.session.listener.task("Comparing", len(list(self.cells)), "search") as task:
            for cells in self._by_seed():
                some = {cell: self._search(cell) for cell in cells}
                for cell in cells:
                    self.source(self.session_of(cell), "search.images").finish()
                search_side_by_side(self.session, {_text(cell): search for cell, search in some.items()})
                for cell, search in some.items():
                    searches[cell] = search.finish().record.trials
                    task.advance_to(len(searches), _text(cell))
        if self.table is not None:
            return _Cells(searches, None, {})
        return self._retrain(searches)

    def _by_seed(self) -> Iterator[list[Cell]]:
        """Yield the cells of each seed. Only these run, and hold their images, at the same time."""
        for seed in self.config.seeds:
            yield [cell for cell in self.cells if cell[1] == seed]
            self.session.forget_images()

    def _retrain(self, searches: Mapping[Cell, tuple[TrialSummary, ...]]) -> _Cells:
        """Retrain every architecture and random ones beside it, and collect the guesses of all on the same images."""
        names: dict[tuple[Cell, str], list[str]] = {}
        folders: dict[str, Location] = {}
        todo = {cell: self._to_retrain(cell, trials, names) for cell, trials in searches.items()}
        number = sum(len(stages) for stages in todo.values())
        with self.session.listener.task("Retraining", number, "network") as task:
            for cells in self._by_seed():
                for cell in cells:
                    self.source(self.session_of(cell), "retraining.images").finish()
                some = {name: stage for cell in cells for name, stage in todo[cell].items()}
                train_side_by_side(self.session, some)
                for name, stage in some.items():
                    folders[name] = stage.finish().location
                    task.advance_to(len(folders), name)
        dataset = open_dataset(evaluation_dataset(self.session.config))
        networks = {name: load_network(folder)[1] for name, folder in folders.items()}
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with self.session.listener.task("Evaluating on real images", len(dataset), "image") as task:
            guesses = guess_classes(networks, self.session.teacher, dataset, device, task.advance_to)
        return _Cells(dict(searches), guesses, names)

    def _to_retrain(
        self, cell: Cell, trials: Sequence[TrialSummary], names: dict[tuple[Cell, str], list[str]]
    ) -> dict[str, ComparedNetwork]:
        """Return the networks to retrain for a cell, by name, and add these names to ``names``."""
        session = self.session_of(cell)
        source = self.source(session, "retraining.images")
        todo: dict[str, ComparedNetwork] = {}
        for trial, planned in zip(trials, session.config.search.trials, strict=True):
            architecture = session.architecture(planned.space.model_dump(mode="json"), trial.genotype)
            beside = random_beside(architecture, self.config.random, cell[1], session.min_macs)
            label = label_of(planned, session.config.search)
            own = names[cell, label] = []
            for number, one in enumerate([architecture, *beside]):
                own.append(f"{cell[0]}/{cell[1]}/{label}/{number}")
                todo[own[-1]] = ComparedNetwork(session, one, source)
        return todo

    def _judge(self, cells: _Cells) -> list[FoundArchitecture]:
        """Return each architecture that a search found, with its accuracy and comparisons."""
        found = []
        for cell, trials in cells.searches.items():
            session = self.session_of(cell)
            for trial, planned in zip(trials, session.config.search.trials, strict=True):
                label = label_of(planned, session.config.search)
                common = {"variant": cell[0], "seed": cell[1], "algorithm": label}
                what = {"genotype": trial.genotype, "macs": trial.macs}
                looked_up = self.table is not None
                worth = self._looked_up(session, trial) if looked_up else self._measured(cells, cell, label)
                found.append(FoundArchitecture(**common, **what, **worth))
        return found

    def _looked_up(self, session: Session, trial: TrialSummary) -> JsonObject:
        """Return an architecture's true accuracy, the mean of those with like MACs, and the best within the limits."""
        known = self._accuracy_and_macs
        low, high = session.min_macs or 0, session.max_macs or math.inf
        within = {text: figures for text, figures in known.items() if low <= figures[1] <= high}
        alike = [
            accuracy
            for text, (accuracy, macs) in within.items()
            if abs(macs - trial.macs) <= _ALIKE * trial.macs and text != trial.genotype
        ]
        return {
            "accuracy": known[trial.genotype][0] if trial.genotype in known else None,
            "random_mean": float(np.mean(alike)) if alike else None,
            "random": len(alike),
            "best": max((accuracy for accuracy, _ in within.values()), default=None),
        }

    @cached_property
    def _accuracy_and_macs(self) -> dict[str, tuple[float, int]]:
        """The figures of each architecture of the table, by its text."""
        assert self.table is not None
        space, rows = self.session.spaces[0], zip(self.table.architectures, self.table.accuracies.tolist(), strict=True)
        return {space.encode(genotype): (accuracy, space.cost(genotype).macs) for genotype, accuracy in rows}

    def _measured(self, cells: _Cells, cell: Cell, label: str) -> JsonObject:
        """Return an architecture's accuracy after retraining, and the mean of random ones.

        For another variant than the reference, add McNemar's test against the reference's architecture.
        """
        guesses = cells.guesses
        assert guesses is not None
        own, *beside = cells.names[cell, label]
        worth: JsonObject = {
            "accuracy": _POINTS * guesses.accuracy(own),
            "random_mean": _POINTS * float(np.mean([guesses.accuracy(name) for name in beside])) if beside else None,
            "random": len(beside),
        }
        reference = (self.config.compared_with, cell[1])
        if cell != reference and (reference, label) in cells.names:
            only = guesses.only_right(own, cells.names[reference, label][0])
            worth |= {"only_right": only, "mcnemar": mcnemar(*only)}
        return worth


def _text(cell: Cell) -> str:
    return f"{cell[0]}, seed {cell[1]}"


def random_beside(
    architecture: Architecture, number: int, seed: int, min_macs: int | None = None
) -> list[Architecture]:
    """Return ``number`` different random architectures of like MACs; fewer if the draws find no more."""
    different: dict[str, Architecture] = {}
    for draw in range(4 * number):
        one = architecture.random_alike(derive_seed(seed, "comparison", draw), min_macs)
        different.setdefault(one.text, one)
        if len(different) == number:
            break
    return list(different.values())
