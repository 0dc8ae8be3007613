"""Rankings of a table's architectures by every algorithm, in every variant of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dfnas_ray.algorithms.config import SearchConfig, Trial
from dfnas_ray.algorithms.trials import SearchJob
from dfnas_ray.comparison.config import ComparisonConfig
from dfnas_ray.comparison.rows import RankedVariants
from dfnas_ray.comparison.statistics import Spread
from dfnas_ray.ranking.recorded import Ranking, Recorded
from dfnas_ray.ranking.statistics import draw_resamples, measure_agreement
from dfnas_ray.ranking.table import BenchmarkTable
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.workflow import rankings
from dfnas_ray.workflow.images import ImagesStage
from dfnas_ray.workflow.session import Session


class Variants(Protocol):
    """What is ranked: the comparison's variants with its seeds."""

    config: ComparisonConfig
    session: Session

    def session_of(self, cell: tuple[str, int]) -> Session:
        """Return the session of a variant with a seed."""
        ...

    def source(self, session: Session, setting: str) -> ImagesStage:
        """Return what makes the images of a session."""
        ...


def label_of(trial: Trial, search: SearchConfig) -> str:
    """Return what tables call a trial's algorithm: its name without the seed, and without the space if there is but one."""
    label = trial.name.rsplit("-seed-", 1)[0]
    return label.removesuffix(f"-{trial.space.kind}") if len(search.space) == 1 else label


def rank_variants(variants: Variants, sample: BenchmarkTable, chunk_size: int) -> RankedVariants:
    """Measure what is missing, and return how well each ranking agrees with the table.

    Args:
        variants: Of the comparison.
        sample: The architectures to rank, with their true accuracies.
        chunk_size: Architectures that are measured by one task.
    """
    executor, teacher = variants.session.executor, variants.session.shared_teacher
    space, seeds = variants.session.spaces[0], variants.config.seeds
    recorded: dict[Ranking, Recorded] = {}
    sources: dict[str, ImagesStage] = {}
    keys: list[tuple[str, str]] = []
    for variant in variants.config.variants:
        search = variants.session_of((variant, seeds[0])).config.search
        for trial in search.trials:
            if trial.algorithm.cannot_rank:
                continue
            label = label_of(trial, search)
            keys.append((label, variant))
            for seed in seeds:
                session = variants.session_of((variant, seed))
                own = next(one for one in session.config.search.trials if one.name == trial.name)
                name = f"{label}, {variant}, seed {seed}"
                sources[name] = variants.source(session, "search.images")
                sources[name].finish()
                ranking = _ranking(session, own, name, sources[name], sample.architectures)
                recorded[ranking] = Recorded.read(ranking, session.listener.say)
    architectures = {space.encode(genotype): genotype for genotype in sample.architectures}

    def images(name: str) -> Shared[SyntheticImages]:
        return sources[name].images(executor)

    missing = sum(len(one.missing(architectures)) for one in recorded.values())
    if missing:
        with variants.session.listener.task("Ranking", missing, "architecture") as task, executor.show(task) as board:
            rankings.measure_all(executor, recorded, architectures, chunk_size, teacher, images, board)
    scores = rankings.scores_of(executor, recorded, list(architectures), teacher, images)
    resamples = draw_resamples(len(sample), variants.session.given.seed)
    ranked = RankedVariants(len(sample), {}, {})
    for number, key in enumerate(keys):
        of_seeds = np.array([one.scores for one in scores[number * len(seeds) : (number + 1) * len(seeds)]])
        agreement = measure_agreement(of_seeds, sample.accuracies, resamples)
        ranked.tau[key] = Spread.resampled(agreement.tau.per_seed, agreement.resampled_tau)
        ranked.resampled[key] = agreement.resampled_tau
    return ranked


def _ranking(
    session: Session, trial: Trial, name: str, source: ImagesStage, architectures: Sequence[Genotype]
) -> Ranking:
    named = (session.config.search.images.description, source)
    folder = rankings.ranking_folder(session, trial.algorithm, named, architectures)
    folder.begin()
    config = session.config
    job = SearchJob(config.search, config.cluster.search, config.seed, session.max_macs, folder.location)
    return Ranking(name, job, Trial(name, trial.algorithm, trial.space, 0))
