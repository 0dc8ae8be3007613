"""What studies will take: sweeps, truths and comparisons, whose many parts are spread over the workers."""

from __future__ import annotations

from collections.abc import Mapping

from dfnas_ray import formatting
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.planning import timing
from dfnas_ray.planning.estimate import (
    StageEstimate,
    device_of,
    estimate,
    network_seconds,
    overhead,
    room,
    rough_work,
)
from dfnas_ray.search_spaces import build_space
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.teachers.base import Teacher


def rough_work_of_truth(config: ExperimentConfig, teacher: Teacher, architectures: int) -> float:
    """Return the multiply-adds of a truth, by a rough count."""
    images = config.retraining.images.size(config.synthesis.size(teacher.image_shape), "retraining.images").images
    return 3.0 * teacher.cost.macs * images * config.retraining.epochs * architectures


def estimate_truth(config: ExperimentConfig, teacher: Teacher, architectures: int) -> StageEstimate:
    """Return how long the training of ``architectures`` takes, after a few steps of it in this process.

    Raises:
        DfnasError: the images cannot be used.
    """
    cluster = config.cluster
    space = build_space(config.search.space[0], teacher.image_shape, teacher.num_classes)
    canvas = config.synthesis.canvas_size(*teacher.image_shape[1:])
    one = network_seconds(config, teacher, None, canvas, space)
    workers = min(room(cluster, cluster.retraining), architectures)
    start = overhead(cluster, 1, first=True)
    epochs = formatting.plural(config.retraining.epochs, "epoch")
    work = f"{formatting.plural(architectures, 'architecture')}, {epochs} each, {formatting.plural(workers, 'worker')}"
    return StageEstimate("truth", work, architectures * one / workers + start, start)


def rough_work_of_sweep(config: ExperimentConfig, teacher: Teacher) -> float:
    """Return the multiply-adds of a sweep, by a rough count."""
    sweep = config.sweep
    assert sweep is not None
    images = sweep.synthesis(config.synthesis, {}, fixed=True).image_steps()
    return 3.0 * teacher.cost.macs * sweep.num_trials * (images + sweep.student.steps * sweep.student.batch_size)


def estimate_sweep(config: ExperimentConfig, teacher: Teacher) -> StageEstimate:
    """Return how long all trials take if none is pruned: their images, and the students that judge them.

    A trial counts as one with the experiment's own settings and those that are fixed for trials.

    Raises:
        DfnasError: these images cannot be asked of this teacher.
    """
    sweep, cluster = config.sweep, config.cluster
    assert sweep is not None
    device = device_of(cluster, cluster.synthesis)
    settings = sweep.synthesis(config.synthesis, {}, fixed=True)
    making = timing.time_synthesis(teacher, config.model_copy(update={"synthesis": settings}), device)
    judging, examining = 0.0, 0.0
    if any(OBJECTIVES.find(name).needs_student for name in sweep.objectives):
        space = build_space(config.search.space[0], teacher.image_shape, teacher.num_classes)
        judging = (
            sweep.student.steps
            * sweep.student.batch_size
            * timing.time_training(
                teacher,
                space,
                config.search.macs_limit(teacher.cost.macs),
                sweep.student.optimizer,
                config.retraining.distillation,
                "float32",
                sweep.student.batch_size,
                cluster.synthesis.cpus,
                settings.canvas_size(*teacher.image_shape[1:]),
                device,
            )
        )
        share = min(1.0, sweep.reference.images / (settings.num_shards * settings.images_per_shard))
        examining = sweep.reference.settings * share * making
    trials, workers = sweep.num_trials, room(cluster, cluster.synthesis)
    at_once = min(trials, workers, sweep.concurrency or workers)
    start = overhead(cluster, 2, first=True)
    work = f"{formatting.plural(trials, 'trial')}, {at_once} at once"
    return StageEstimate("sweep", work, trials * (making + judging) / at_once + examining / workers + start, start)


def rough_work_of_comparison(variants: Mapping[str, ExperimentConfig], teacher: Teacher, seeds: int) -> float:
    """Return the multiply-adds of a comparison, by a rough count."""
    return seeds * sum(rough_work(config, teacher) for config in variants.values())


def estimate_comparison(
    variants: Mapping[str, ExperimentConfig],
    teacher: Teacher,
    seeds: int,
    random: int | None,
    ranked: int,
    searches: bool,
) -> StageEstimate:
    """Return how long the searches of a comparison take, with the retraining or the rankings that follow.

    Args:
        variants: The experiment of each.
        teacher: That of all.
        seeds: Root seeds of each variant.
        random: Networks that are retrained beside each that a search found; None: accuracies are looked up in a table.
        ranked: Architectures of the table that every algorithm ranks; 0: none are.
        searches: Whether searches are measured, too.

    Raises:
        DfnasError: a variant cannot begin.
    """
    made: dict[str, float] = {}
    timed: dict[
        str, tuple[float, float]
    ] = {}  # a search, a network: variants that differ in their images alone are alike
    trials, seconds = 0, 0.0
    for config in variants.values():
        cluster, search = config.cluster, config.search
        alike = config.model_dump_json(exclude={"search": {"images"}, "retraining": {"images"}})
        images = config.synthesis.model_dump_json()
        if alike not in timed or (config.uses_synthesis and images not in made):
            whole = estimate(config, teacher)
            working = {stage.stage: stage.seconds - stage.start for stage in whole.stages}
            timed[alike] = whole.search_parts.work, working["retraining"]
            if config.uses_synthesis:
                made[images] = working["synthesis"]
        searching, training = timed[alike]
        trials += len(search.trials)
        if searches:
            seconds += searching / room(cluster, cluster.search)
            if random is not None:
                seconds += len(search.trials) * (1 + random) * training / room(cluster, cluster.retraining)
        if ranked:
            seconds += _ranking(config, teacher, ranked) / room(cluster, cluster.search)
    cluster = next(iter(variants.values())).cluster
    start = overhead(cluster, 4, first=True)
    work = [f"{len(variants)} variants", formatting.plural(seeds, "seed")]
    if searches:
        work.append(formatting.plural(seeds * trials, "search", "searches"))
        if random is not None:
            work.append(f"{seeds * trials * (1 + random)} networks retrained")
    if ranked:
        work.append(f"rankings of {formatting.plural(ranked, 'architecture')}")
    return StageEstimate("comparison", ", ".join(work), seeds * (sum(made.values()) + seconds) + start, start)


def _ranking(config: ExperimentConfig, teacher: Teacher, architectures: int) -> float:
    """Return the seconds in which one worker ranks so many architectures by every algorithm that can."""
    canvas = config.synthesis.canvas_size(*teacher.image_shape[1:])
    device = device_of(config.cluster, config.cluster.search)
    able = [trial for trial in config.search.trials if not trial.algorithm.cannot_rank]
    return sum(timing.time_trial(teacher, config, trial, None, canvas, device, architectures) for trial in able)
