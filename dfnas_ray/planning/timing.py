"""Measure how long steps take: run a few small steps of each kind on noise, with the code of the real stage.

Each function runs its steps in this process, on as many threads as its stage's workers have. The median of equal steps
stands for all of them: now and then one takes ten times as long, for instance when a file is read for the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import torch

from dfnas_ray.algorithms.config import SearchConfig, Trial
from dfnas_ray.algorithms.stand_alone import CandidateTraining
from dfnas_ray.algorithms.trials import SearchJob, begin_trial, make_batches
from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.errors import GenotypeError
from dfnas_ray.ops.precision import Precision
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import fixed_threads, numpy_generator
from dfnas_ray.storage.arrivals import WholeSet
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages, ids_of_shard
from dfnas_ray.synthesis.rehearsal import rehearse
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.config import DistillationConfig, OptimizerConfig

STEP_MACS = 2e9
"""MACs of one forward pass of the teacher on a timed batch: a fraction of a second on a CPU."""

_TRAINING_STEPS = 3
_EPOCHS = 2
_CANDIDATES = 8
_DRAWS = 200

_LEAST_HELD_OUT = 0.1
"""Least share of the timed images for validation: they are few, and some have to be held out."""

_LONG_ENOUGH = 1.0
"""Seconds after which no more candidates are timed."""


def timed_batch(teacher: Teacher, batch_size: int) -> int:
    """Return how many images of a batch are timed. The time of a large network is proportional to their number."""
    return max(2, min(batch_size, int(STEP_MACS / max(1, teacher.cost.macs))))


@contextmanager
def clocked(device: torch.device) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since its last call, or since the block began."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        before, last = last, time.perf_counter()
        return last - before

    yield lap


def time_synthesis(teacher: Teacher, config: ExperimentConfig, device: torch.device) -> float:
    """Return the seconds that one worker needs for all shards.

    Raises:
        SynthesisError: the settings do not fit this teacher.
    """
    settings = config.synthesis
    small = settings.method.rehearsal(settings, timed_batch(teacher, settings.method.batch_size))
    with fixed_threads(config.cluster.synthesis.cpus):
        return rehearse(teacher.to(device), settings, small, device)


def time_training(
    teacher: Teacher,
    space: SearchSpace,
    max_macs: int | None,
    optimizer: OptimizerConfig,
    distillation: DistillationConfig,
    precision: Precision,
    batch_size: int,
    threads: int,
    canvas: tuple[int, int],
    device: torch.device,
) -> float:
    """Return the training time per image, in seconds, of a network close to the limit of MACs.

    Args:
        teacher: The teacher that labels the images.
        space: The search space of the network.
        max_macs: The limit; None: any network.
        optimizer: Settings of the optimizer.
        distillation: Settings of the distillation.
        precision: Precision in which the network computes.
        batch_size: Images per step.
        threads: Number of threads of the worker.
        canvas: Height and width of the stored images.
        device: Device of the training.
    """
    batch = timed_batch(teacher, batch_size)
    with fixed_threads(threads):
        job = _job(SearchConfig(distillation=distillation, precision=precision, validation_fraction=0.5), max_macs)
        images = noise(teacher, canvas, 2 * (_TRAINING_STEPS + 1) * batch)
        batches = make_batches(job, teacher, images, WholeSet(images), batch, 0, device)
        training = CandidateTraining(
            space,
            near_limit(space, max_macs),
            batches.train,
            batches.validation,
            distillation,
            optimizer,
            (1,),
            0,
            precision,
        )
        epoch = batches.train.epoch(0)
        training.student.step(next(epoch))
        laps = []
        with clocked(device) as lap:
            for step in epoch:
                training.student.step(step)
                laps.append(lap() / len(step.images))
        return median(laps)


def time_trial(
    teacher: Teacher,
    config: ExperimentConfig,
    trial: Trial,
    max_macs: int | None,
    canvas: tuple[int, int],
    device: torch.device,
    num_candidates: int | None = None,
) -> float:
    """Return the seconds of one search trial on all images, without the comparison of its finalists.

    Args:
        teacher: Labels the images.
        config: The experiment.
        trial: One of its searches.
        max_macs: The limit.
        canvas: Height and width of the stored images.
        device: Where it computes.
        num_candidates: Architectures that are measured; None: as many as the search does.

    Raises:
        DfnasError: the search cannot begin.
    """
    algorithm, search = trial.algorithm, config.search
    batch = timed_batch(teacher, algorithm.batch_size)
    warm = getattr(algorithm, "warmup_epochs", 0)  # epochs in which only weights learn; later ones take longer
    changes = {"batch_size": batch, **({"warmup_epochs": min(warm, 1 + _EPOCHS)} if warm else {})}
    small = trial._replace(algorithm=algorithm.model_copy(update=changes))
    total = config.synthesis.images_in_total
    validation = round(total * search.validation_fraction)
    train = total - validation
    held_out = max(search.validation_fraction, _LEAST_HELD_OUT)
    with fixed_threads(config.cluster.search.cpus):
        images = noise(teacher, canvas, round(2 * (_TRAINING_STEPS + 1) * batch / (1 - held_out)))
        timed = search.model_copy(update={"start_after_shards": None, "validation_fraction": held_out})
        job = _job(timed, max_macs)
        state, batches = begin_trial(job, small, teacher, WholeSet(images), None, device)
        seconds, searcher = 0.0, state.algorithm

        def fastest_epoch() -> float:
            epochs = []
            for _ in range(max(1, min(_EPOCHS, searcher.num_epochs - searcher.epochs_done))):
                searcher.train_epoch()
                epochs.append(lap())
            return min(epochs)

        with clocked(device) as lap:
            passes = searcher.num_epochs if algorithm.num_passes is None else algorithm.num_passes
            if passes:
                if passes > algorithm.passes_per_epoch:
                    searcher.train_epoch()  # the first epoch warms up
                    lap()
                scale = train / (algorithm.passes_per_epoch * len(batches.train.ids))
                if warm:
                    seconds += warm * scale * fastest_epoch()
                    passes -= warm
                seconds += passes * scale * fastest_epoch()
            count = algorithm.num_candidates if num_candidates is None else num_candidates
            candidates = [] if count == 0 or searcher.is_finished else searcher.ask()
            if candidates:
                if count is None:
                    count = max(1, algorithm.steps_to_show - searcher.num_epochs) * len(candidates)
                scorer = searcher.scorer()
                scorer(candidates[:1])
                lap()
                laps: list[float] = []
                for candidate in candidates[1 : 1 + _CANDIDATES] or candidates[:1]:
                    scorer([candidate])
                    laps.append(lap())
                    if sum(laps) > _LONG_ENOUGH:
                        break
                looked_at = small.algorithm.images_per_candidate(len(batches.train.ids), len(batches.validation.ids))
                growth = algorithm.images_per_candidate(train, validation) / looked_at
                if growth == 1:  # a fixed number of batches, however many images there are
                    growth = algorithm.batch_size / batch
                seconds += min(count, size_of(searcher.space)) * growth * median(laps)
    return seconds


def time_forward(teacher: Teacher, device: torch.device) -> float:
    """Return the seconds of the teacher's forward pass per image, on one thread."""
    batch = timed_batch(teacher, 256)
    images = torch.zeros(batch, *teacher.image_shape, device=device)
    model = teacher.to(device).model
    with fixed_threads(1), torch.inference_mode(), clocked(device) as lap:
        model(images)
        lap()
        model(images)
        return lap() / batch


def noise(teacher: Teacher, canvas: tuple[int, int], count: int) -> SyntheticImages:
    """Return ``count`` images of noise with random labels; steps on them take as long as on other images."""
    rng = numpy_generator(0, "timing")
    return SyntheticImages(
        images=rng.integers(0, 256, (count, teacher.image_shape[0], *canvas), dtype=np.uint8),
        labels=rng.integers(0, teacher.num_classes, count),
        rounds=np.zeros(count, np.int64),
        logits=rng.standard_normal((count, teacher.num_classes), dtype=np.float32),
        ids=ids_of_shard(0, count),
    )


def near_limit(space: SearchSpace, max_macs: int | None) -> Genotype:
    """Return an architecture close below the limit, where searches mostly find theirs; or a middling one."""
    rng = numpy_generator(0, "timing")
    drawn = []
    for _ in range(_DRAWS):
        try:
            drawn.append(space.sample_within(rng, max_macs))
        except GenotypeError:
            return space.cheapest()
    costs = sorted(drawn, key=lambda genotype: space.cost(genotype).macs)
    return costs[-1 - _DRAWS // 20] if max_macs is not None else costs[_DRAWS // 2]


def size_of(space: SearchSpace) -> float:
    """Return the number of genotypes in a space, as a float."""
    return float(np.prod([float(count) for count in space.num_choices]))


def _job(config: SearchConfig, max_macs: int | None) -> SearchJob:
    return SearchJob(config, SearchResources(), 0, max_macs, Location.parse("."))
