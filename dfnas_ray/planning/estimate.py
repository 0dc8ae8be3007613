"""Estimate the time and the memory of each stage from a few small steps of each kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from dfnas_ray import formatting
from dfnas_ray.config.cluster import ClusterConfig, WorkerResources
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.ops.compiling import compiled_time
from dfnas_ray.planning import timing
from dfnas_ray.search_spaces import build_space
from dfnas_ray.search_spaces.base import SearchSpace
from dfnas_ray.teachers.base import Teacher

RAY_STARTS = 5.0
"""Seconds until a local Ray cluster is ready, measured on two cores of a server like the next two values."""

WORKERS_START = 5.0
"""Seconds until a group of workers has imported what it needs."""

TRAIN_STARTS = 10.0
"""Seconds that the workers of Ray Train need to start, and to end after their last step."""


@dataclass(frozen=True)
class StageEstimate:
    """The estimated time of one stage.

    Attributes:
        stage: The name of the stage.
        work: What it does, in a few words.
        seconds: The time on as many workers as there is room for.
        start: The part of it that passes until its workers have started.
    """

    stage: str
    work: str
    seconds: float
    start: float = 0.0


@dataclass(frozen=True)
class SearchParts:
    """The estimated time of a search, in parts.

    Attributes:
        trials: Seconds of all trials.
        finalists: Seconds of the comparison of their finalists.
        work: Seconds of both if one worker does everything.
    """

    trials: float
    finalists: float
    work: float


@dataclass(frozen=True)
class ExperimentPlan:
    """The estimated time and memory of an experiment.

    Attributes:
        stages: The stages in their order.
        memory: Bytes that one worker holds at least: the program and the work on a batch.
        images: Bytes of the images in memory, or in a temporary file if they take more than half of what is free.
        where: The machine or workers for which the times hold.
        search_parts: The time of the search, in parts.
    """

    stages: tuple[StageEstimate, ...]
    memory: int
    images: int
    where: str
    search_parts: SearchParts

    @property
    def seconds(self) -> float:
        """The time of all stages, one after the other."""
        return sum(stage.seconds for stage in self.stages)


def estimate(
    config: ExperimentConfig, teacher: Teacher, on_timed: Callable[[str], object] = lambda stage: None
) -> ExperimentPlan:
    """Run a few steps of every stage in this process, and return the plan of the whole experiment.

    Args:
        config: The experiment.
        teacher: Its teacher.
        on_timed: Called with the name of each stage before its steps run.

    Raises:
        DfnasError: a stage cannot begin. The message is that of the stage itself.
    """
    cluster, images = config.cluster, config.synthesis.images_in_total
    canvas = config.synthesis.canvas_size(*teacher.image_shape[1:])
    spaces = [build_space(space, teacher.image_shape, teacher.num_classes) for space in config.search.space]
    max_macs = config.search.macs_limit(teacher.cost.macs)
    for space in spaces:
        space.check_window(max_macs, config.search.macs_at_least(teacher.cost.macs))
    stages = []
    if config.uses_synthesis:
        on_timed("synthesis")
        stages.append(_synthesis(config, teacher))
    on_timed("search")
    search, parts = _search(config, teacher, max_macs, canvas, spaces[0])
    stages.append(search)
    on_timed("retraining")
    stages += _retraining(config, teacher, max_macs, canvas, spaces[0])
    stages += _evaluation(config, teacher, 2 + config.retraining.baseline)
    pixels = teacher.image_shape[0] * canvas[0] * canvas[1]
    memory, set_size = psutil.Process().memory_info().rss, images * (pixels + 4 * teacher.num_classes)
    return ExperimentPlan(tuple(stages), memory, set_size, machine_of(cluster), parts)


def _synthesis(config: ExperimentConfig, teacher: Teacher) -> StageEstimate:
    settings, cluster = config.synthesis, config.cluster
    alone = timing.time_synthesis(teacher, config, device_of(cluster, cluster.synthesis))
    chains = sum(settings.method.predecessor(shard, settings) is None for shard in range(settings.num_shards))
    workers = min(chains, cluster.synthesis.actors or room(cluster, cluster.synthesis))
    rows = settings.images_in_total
    labels = (
        2 * rows * timing.time_forward(teacher, device_of(cluster, cluster.synthesis))
    )  # and the quality of the set
    work = f"{rows:,} images by {settings.method.kind}, {formatting.plural(workers, 'worker')}"
    start = overhead(cluster, 2, first=True)
    return StageEstimate("synthesis", work, alone / workers + labels + start, start)


def _search(
    config: ExperimentConfig, teacher: Teacher, max_macs: int | None, canvas: tuple[int, int], space: SearchSpace
) -> tuple[StageEstimate, SearchParts]:
    search, cluster = config.search, config.cluster
    device = device_of(cluster, cluster.search)
    kinds = {}
    for trial in search.trials:
        key = (trial.algorithm, trial.space)
        if key not in kinds:
            kinds[key] = timing.time_trial(teacher, config, trial, max_macs, canvas, device)
    workers = room(cluster, cluster.search)
    work = [kinds[trial.algorithm, trial.space] for trial in search.trials]
    trials = max(max(work), sum(work) / min(workers, len(work)))
    finalists, training = len(work) * search.selection.finalists, 0.0
    if finalists > 1:
        per_image = timing.time_training(
            teacher,
            space,
            max_macs,
            search.selection.optimizer,
            search.distillation,
            search.precision,
            search.selection.batch_size,
            cluster.search.cpus,
            canvas,
            device,
        )
        training = per_image * search.selection.epochs * learned_from(config, config.synthesis.images_in_total)
    compared = -(-finalists // workers) * training
    kinds_text = ", ".join(dict.fromkeys(f"{trial.algorithm.label} in {trial.space.kind}" for trial in search.trials))
    text = f"{kinds_text}, {formatting.plural(len(work), 'trial')}, {finalists} finalists"
    start = overhead(cluster, 2)
    parts = SearchParts(trials, compared, sum(work) + finalists * training)
    return StageEstimate("search", text, trials + compared + start, start), parts


def _retraining(
    config: ExperimentConfig, teacher: Teacher, max_macs: int | None, canvas: tuple[int, int], space: SearchSpace
) -> list[StageEstimate]:
    retraining = config.retraining
    start = 0.0 if config.cluster.is_inline else TRAIN_STARTS
    seconds = network_seconds(config, teacher, max_macs, canvas, space) / retraining.num_workers + start
    epochs = formatting.plural(retraining.epochs, "epoch")
    found = [StageEstimate("retraining", f"the network found, {epochs}", seconds, start)]
    if retraining.baseline:
        found.append(StageEstimate("baseline", f"a random network of the same budget, {epochs}", seconds, start))
    return found


def network_seconds(
    config: ExperimentConfig, teacher: Teacher, max_macs: int | None, canvas: tuple[int, int], space: SearchSpace
) -> float:
    """Return the seconds in which one worker retrains one network."""
    retraining, resources = config.retraining, config.cluster.retraining
    device = device_of(config.cluster, resources)
    per_image = timing.time_training(
        teacher,
        space,
        max_macs,
        retraining.optimizer,
        retraining.distillation,
        retraining.precision,
        retraining.batch_size // retraining.num_workers,
        resources.cpus,
        canvas,
        device,
    )
    images = retraining.images.size(config.synthesis.size(teacher.image_shape), "retraining.images").images
    seconds = per_image * retraining.epochs * learned_from(config, images)
    return compiled_time(seconds) if retraining.compile and device.type == "cpu" else seconds


def _evaluation(config: ExperimentConfig, teacher: Teacher, networks: int) -> list[StageEstimate]:
    if config.evaluation.dataset is None:
        return []
    from dfnas_ray.datasets.base import open_dataset

    count = len(open_dataset(config.evaluation.dataset))  # finds the files; no image is read
    students = config.uses_synthesis and config.synthesis.method.has_student
    forward = timing.time_forward(teacher, torch.device("cpu"))
    seconds = count * forward * (networks + 2 * students)
    return [StageEstimate("evaluation", f"{count:,} real images", seconds)]


def learned_from(config: ExperimentConfig, images: int) -> float:
    """Return the images of an epoch; a validation image counts as a third of a training image, as it costs."""
    share = config.search.validation_fraction
    return images * (1 - share + share / 3)


def room(cluster: ClusterConfig, resources: WorkerResources) -> int:
    """Return how many workers of this size fit, as far as this is known before a cluster is joined."""
    if cluster.is_inline:
        return 1
    cpus = cluster.max_cpus or cluster.num_cpus or os.cpu_count() or 1
    workers = cpus // resources.cpus
    if resources.gpus:
        workers = int((cluster.max_gpus or cluster.num_gpus or torch.cuda.device_count() or 1) / resources.gpus)
    return max(1, workers)


def device_of(cluster: ClusterConfig, resources: WorkerResources) -> torch.device:
    """Return the type of device that a worker computes on, or the CPU if this machine has no GPU."""
    on_gpu = torch.cuda.is_available() and (cluster.is_inline or resources.gpus > 0)
    return torch.device("cuda" if on_gpu else "cpu")


def overhead(cluster: ClusterConfig, crews: int, first: bool = False) -> float:
    """Return the seconds to start ``crews`` groups of workers, and for the first stage also the cluster."""
    return 0.0 if cluster.is_inline else crews * WORKERS_START + first * RAY_STARTS


def machine_of(cluster: ClusterConfig) -> str:
    """Return what estimates hold for."""
    if cluster.is_inline or cluster.address == "local":
        cores = os.cpu_count() or 1
        gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
        return f"this machine, {formatting.plural(cores, 'core')}{gpu}"
    return "workers like this machine"


BRIEF = 2e11
"""Multiply-adds below which work takes only seconds, and no estimate is printed."""


def rough_work(config: ExperimentConfig, teacher: Teacher) -> float:
    """Return the multiply-adds of a whole experiment, by a rough count."""
    synthesis = config.synthesis
    image_steps = synthesis.image_steps()
    learned = synthesis.images_in_total * (config.retraining.epochs + config.search.selection.epochs)
    return 3.0 * teacher.cost.macs * (image_steps + learned)


def rounded(seconds: float) -> str:
    """Return a time with few digits, as suits an estimate: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return formatting.duration(max(10.0, 10 * round(seconds / 10)))
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return formatting.duration(600 * round(seconds / 600))
