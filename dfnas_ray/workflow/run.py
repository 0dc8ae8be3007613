"""The order of the stages: synthesis, search, retraining with its baseline, evaluation.

Every function makes sure that its own stage and those before it are finished. Finished stages are not repeated.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from dfnas_ray.config.experiment import evaluation_dataset
from dfnas_ray.datasets.base import open_dataset
from dfnas_ray.errors import GenotypeError
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.workflow.benchmark import Benchmark
from dfnas_ray.workflow.comparison import VariantComparison
from dfnas_ray.workflow.evaluation import Evaluation, EvaluationRecord, check_dataset
from dfnas_ray.workflow.images import images_of
from dfnas_ray.workflow.retraining import Baseline, Retraining, RetrainingRecord
from dfnas_ray.workflow.search import Search, SearchRecord
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Outcome, Record, Stage
from dfnas_ray.workflow.streaming import synthesize_beside
from dfnas_ray.workflow.synthesis import Synthesis, SynthesisRecord

Outcomes: TypeAlias = dict[str, Outcome[Record]]
"""Finished stages by their names."""

REPORTED: tuple[type[Stage[Any]], ...] = (
    Synthesis, Search, Retraining, Baseline, Evaluation, Benchmark, VariantComparison,
)  # fmt: skip
"""The stages in a report of a run directory, in order: each stands behind those that it is made from."""


def synthesize(session: Session) -> Outcome[SynthesisRecord]:
    """Make the synthetic images."""
    return Synthesis(session).finish()


def search(session: Session, synthesis: Synthesis | None = None) -> Outcome[SearchRecord]:
    """Find an architecture on the images of `search.images`, which are made first.

    Args:
        session: The session of the command.
        synthesis: The stage of the synthetic images, if there is one already.
    """
    source = images_of(session, session.config.search.images, "search.images")
    if isinstance(source, Synthesis):
        source = synthesis or source
    stage = Search(session, source)
    stage.check()  # before images are made
    if session.config.search.start_after_shards is not None and isinstance(source, Synthesis) and not stage.is_done:
        synthesize_beside(source, stage)
    source.finish()
    return stage.finish()


def retrain(session: Session, genotype: str | None = None) -> list[Outcome[RetrainingRecord]]:
    """Train the architecture that was found or given, and a random one with the same budget.

    Args:
        session: The session of the command.
        genotype: A genotype in the notation of one of the experiment's spaces.

    Raises:
        GenotypeError: no space has such an architecture.
    """
    if session.config.cluster.is_inline and genotype is None and not Search(session).is_done:
        session.executor.check_fits("retraining", session.config.retraining.num_workers)  # before hours of search
    if genotype is None:
        found = search(session).record
        chosen = session.architecture(found.space_config, found.genotype)
    else:
        chosen = _find_architecture(session, genotype)
    source = images_of(session, session.config.retraining.images, "retraining.images")
    source.finish()
    stages: list[Retraining] = [Retraining(session, chosen, source)]
    if session.config.retraining.baseline:
        stages.append(Baseline(session, chosen.random_alike(session.config.seed, session.min_macs), source))
    return [stage.finish() for stage in stages]


def evaluate(session: Session, genotype: str | None = None) -> Outcome[EvaluationRecord]:
    """Measure accuracy on real images: in a data-free run, only this stage reads them."""
    check_dataset(
        open_dataset(evaluation_dataset(session.config)), session.teacher
    )  # before all other work; no image is read
    return Evaluation(session, retrain(session, genotype)).finish()


def run(session: Session) -> Outcomes:
    """Run all stages; without an evaluation dataset, all up to retraining."""
    synthesis = Synthesis(session)
    check_all(session, synthesis)
    found = search(session, synthesis)  # it may begin before all images are made
    made: list[Outcome[Record]] = [synthesize(session)] if session.config.uses_synthesis else []
    outcomes: list[Outcome[Record]] = [*made, found, *retrain(session)]
    if session.config.evaluation.dataset is not None:
        outcomes.append(evaluate(session))
    return {outcome.stage: outcome for outcome in outcomes}


def check_all(session: Session, synthesis: Synthesis) -> None:
    """Find errors that would occur later, before hours are spent on earlier stages.

    Raises:
        DfnasError: a stage would fail.
    """
    config = session.config
    sources = {
        setting: images_of(session, images, setting)
        for setting, images in (
            ("search.images", config.search.images),
            ("retraining.images", config.retraining.images),
        )
    }
    stage = Search(session, sources["search.images"])
    for source in sources.values():
        source.check()
    stage.check()
    if config.evaluation.dataset is not None:
        check_dataset(open_dataset(config.evaluation.dataset), session.teacher)  # no image is read
    missing = config.uses_synthesis and not synthesis.is_done
    if missing:
        synthesis.check_fits()
    if missing or not stage.is_done:
        stage.check_fits()
        session.executor.check_fits("retraining", config.retraining.num_workers)


def _find_architecture(session: Session, text: str) -> Architecture:
    """Return the architecture of a text, in the first of the experiment's spaces that has it."""
    problems = []
    for config in session.config.search.space:
        try:
            return session.architecture(config.model_dump(mode="json"), text)
        except GenotypeError as error:
            problems.append(str(error))
    raise GenotypeError("\n".join(problems))
