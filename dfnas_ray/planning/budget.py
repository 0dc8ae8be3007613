"""Settings for a time limit: how many images, candidates and epochs fit into it on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dfnas_ray.config.experiment import ExperimentConfig, make_experiment
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.planning.estimate import ExperimentPlan, estimate
from dfnas_ray.planning.recipe import FEW_BATCHES, complete, merged, row_of
from dfnas_ray.synthesis.generator.config import GeneratorSettings
from dfnas_ray.teachers.base import Teacher

IMAGES_SHARE, CANDIDATES_SHARE, FINALISTS_SHARE = 0.42, 0.1, 0.08
"""Shares of the time; the rest trains the network found, and the random one beside it."""

USED = 0.92
"""Share of the given time that is planned for: an estimate may be a little low."""

_CANDIDATES, _MOST_CANDIDATES, _FEWEST_CANDIDATES = 400, 1_000, 60
_MOST_IMAGES, _LONGEST = 4.0, 2.0
"""Multiples of the recipe's number of images and length of training; more was not measured."""

_FEWEST_STEPS = 300


_MIRRORED: SettingValues = {
    "synthesis": {"flip_probability": 0.5},
    "search": {"distillation": {"augmentation": {"flip_probability": 0.5}}},
    "retraining": {"distillation": {"augmentation": {"flip_probability": 0.5}}},
}


@dataclass(frozen=True)
class Fitted:
    """An experiment that fits into a time.

    Attributes:
        values: Its settings, as they are written to a file.
        plan: The time and memory that it will take.
        fits: Whether it fits. It may not, because a generator needs some number of images to be useful.
    """

    values: SettingValues
    plan: ExperimentPlan
    fits: bool


def fit(given: SettingValues, teacher: Teacher, minutes: float, mirror: bool = False) -> Fitted:
    """Return the experiment that uses ``minutes`` best on this machine.

    Args:
        given: Settings that are kept: at least the teacher.
        teacher: The same teacher, loaded.
        minutes: The time for everything, from the images to the trained networks.
        mirror: Whether a mirrored image has the same class.

    Raises:
        DfnasError: a stage cannot begin with this teacher.
    """
    cores = os.cpu_count() or 1
    given = merged({"cluster": {"retraining": {"cpus": cores}}}, given)
    first = complete(make_experiment(given), teacher)
    chosen = first.model_dump(mode="json", exclude_unset=True)
    if mirror:
        chosen = merged(chosen, _MIRRORED)
    chosen = merged(merged(chosen, _scaled(first, teacher, 60 * minutes * USED)), given)
    config = complete(make_experiment(chosen), teacher)
    plan = estimate(config, teacher)
    return Fitted(config.model_dump(mode="json", exclude_unset=True), plan, plan.seconds <= 66 * minutes)


def _scaled(config: ExperimentConfig, teacher: Teacher, seconds: float) -> SettingValues:
    """Return the sizes with which each part takes its share of the time.

    Up to the measured sizes of the recipe, all sizes grow together. Time beyond that goes into longer training, up to
    twice the measured length, and then into more images.
    """
    plan = estimate(config, teacher)
    variable = {stage.stage: max(stage.seconds - stage.start, 1e-9) for stage in plan.stages}
    left = seconds - sum(stage.start for stage in plan.stages) - variable.get("evaluation", 0.0)
    left = max(left, 0.1 * seconds)
    synthesis, search, retraining = config.synthesis, config.search, config.retraining
    batch = synthesis.method.batch_size
    trials, finalists = plan.search_parts.trials, plan.search_parts.finalists
    candidates = _count(CANDIDATES_SHARE * left, trials, _FEWEST_CANDIDATES, _MOST_CANDIDATES, _CANDIDATES)
    trained = variable["retraining"] + variable.get("baseline", 0.0)

    images = min(1.0, IMAGES_SHARE * left / variable["synthesis"])  # relative to the recipe's, like what follows
    compared = min(1.0, FINALISTS_SHARE * left / max(finalists, 1e-9))
    rest = left - images * variable["synthesis"] - compared * finalists - candidates / _CANDIDATES * trials
    steps = min(_LONGEST, max(rest, 0.0) / trained)
    if steps == _LONGEST:
        images = min(_MOST_IMAGES, images + (rest - steps * trained) / variable["synthesis"])

    fewest = 1.25 * FEW_BATCHES * batch
    count = max(fewest, images * synthesis.images_in_total)
    per_shard = max(1, round(count / synthesis.num_shards / batch)) * batch
    grown = synthesis.num_shards * per_shard / synthesis.images_in_total
    train = synthesis.num_shards * per_shard * (1 - search.validation_fraction)
    epochs = max(steps * retraining.epochs / grown, _FEWEST_STEPS * retraining.batch_size / train)
    method = synthesis.method
    made: SettingValues = {"num_shards": synthesis.num_shards, "images_per_shard": per_shard}
    if isinstance(method, GeneratorSettings) and method.student is not None and method.student.compile:
        learning = synthesis.num_shards * per_shard / (batch * method.streams) * method.student.steps
        made["method"] = {"student": {"compile": learning >= row_of(teacher).long}}
    return {
        "synthesis": made,
        "search": {
            "algorithm": {"kind": "zero_cost", "evolution": _evolution(candidates)},
            "seeds": [0],
            "selection": {"epochs": max(1, round(compared * search.selection.epochs / grown))},
        },
        "retraining": {"epochs": max(1, round(epochs))},
    }


def _count(seconds: float, measured: float, fewest: int, most: int, of: int) -> int:
    return int(min(most, max(fewest, of * seconds / max(measured, 1e-9))))


def _evolution(candidates: int) -> SettingValues:
    """Return the settings of an evolution of about ``candidates`` candidates, in up to ten generations."""
    population = max(20, candidates // 10)
    children = population // 2
    generations = max(2, 1 + round((candidates - population) / (2 * children)))
    return {"generations": generations, "population": population, "mutations": children, "crossovers": children}
