"""Rankings of a table's architectures by every algorithm, in every variant of a comparison."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np

from dfnas_ray.algorithms.config import SearchConfig, Trial
from dfnas_ray.comparison.config import ComparisonConfig
from dfnas_ray.comparison.rows import RankedVariants
from dfnas_ray.comparison.statistics import Spread
from dfnas_ray.ranking.statistics import draw_resamples, measure_agreement
from dfnas_ray.ranking.table import BenchmarkTable
from dfnas_ray.workflow.images import ImagesStage
from dfnas_ray.workflow.rankings import Rankings
from dfnas_ray.workflow.session import Session


class Variants(Protocol):
    """A comparison's variants and seeds."""

    config: ComparisonConfig
    session: Session

    def session_of(self, cell: tuple[str, int]) -> Session:
        """Return the session of a variant with a seed."""
        ...

    def source(self, session: Session, setting: str) -> ImagesStage:
        """Return the stage that makes the images of a session."""
        ...


def label_of(trial: Trial, search: SearchConfig) -> str:
    """Return the name of a trial's algorithm in tables: no seed, and no space if there is only one."""
    label = trial.name.rsplit("-seed-", 1)[0]
    return label.removesuffix(f"-{trial.space.kind}") if len(search.space) == 1 else label


def rank_variants(variants: Variants, sample: BenchmarkTable, chunk_size: int) -> RankedVariants:
    """Measure what is missing, and return how well each ranking agrees with the table.

    Args:
        variants: The variants of the comparison.
        sample: The architectures to rank, with their true accuracies.
        chunk_size: The number of architectures that one task measures.
    """
    seeds, ranked = variants.config.seeds, Rankings("comparison", variants.session, sample.architectures)
    names: dict[tuple[str, str], list[str]] = {}
    for variant in variants.config.variants:
        search = variants.session_of((variant, seeds[0])).config.search
        for trial in search.trials:
            if trial.algorithm.cannot_rank:
                continue
            label = label_of(trial, search)
            own = names[label, variant] = []
            for seed in seeds:
                session = variants.session_of((variant, seed))
                algorithm = next(one for one in session.config.search.trials if one.name == trial.name).algorithm
                source = variants.source(session, "search.images")
                source.finish()
                own.append(f"{label}, {variant}, seed {seed}")
                named = (session.config.search.images.description, source)
                ranked.add(own[-1], algorithm, session, named, partial(source.images, session.executor))
    ranked.measure("Ranking", chunk_size)
    scores = ranked.scores()
    resamples = draw_resamples(len(sample), variants.session.given.seed)
    result = RankedVariants(len(sample), {}, {})
    for key, own in names.items():
        of_seeds = np.array([scores[name].scores for name in own])
        agreement = measure_agreement(of_seeds, sample.accuracies, resamples)
        result.tau[key] = Spread.resampled(agreement.tau.per_seed, agreement.resampled_tau)
        result.resampled[key] = agreement.resampled_tau
    return result
