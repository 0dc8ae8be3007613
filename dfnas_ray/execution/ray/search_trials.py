"""Searches as Ray Tune trials, their candidates scored by Ray tasks.

A trial keeps its state in the stage's folder after every epoch and generation. A trial that Tune starts again, or that a
later command starts again, goes on from there: nothing has to be unpickled, and no snapshot can lag behind.

Where images are still being made (`search.start_after_shards`), a trial takes up new shards between two epochs. It never
waits for one: a trial that needs the whole set, to compare candidates on it, leaves its place to others and is started
again when the set is finished.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import ray
import torch
from ray import tune
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dfnas_ray.algorithms.base import (
    SCORE,
    MeasureCandidates,
    Measurement,
    Scorer,
    SearchProblem,
    SearchState,
    make_algorithm,
)
from dfnas_ray.algorithms.config import SearchConfig, Trial
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig
from dfnas_ray.algorithms.stand_alone import StandAloneScorer
from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.cluster import worker_device
from dfnas_ray.execution.ray.images import ImagesRef
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.execution.ray.tune_runs import fit, last_line
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.arrivals import GrowingSet, ShardFolder, ShardsMissing, ShardSource, WholeSet
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages, shard_of
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SplitBatches


@dataclass(frozen=True)
class SearchJob:
    """What all trials of one search have in common."""

    config: SearchConfig
    resources: SearchResources
    seed: int
    max_macs: int | None
    folder: Location

    def trial_folder(self, trial: Trial) -> Location:
        """Return where one trial keeps its state and its result."""
        return self.folder / trial.name

    def result_file(self, trial: Trial) -> Location:
        """Return where a trial's result is, once the trial is over."""
        return self.trial_folder(trial) / "result.json"


def run_trials(job: SearchJob, teacher: Teacher, images: ImagesRef | ShardFolder, board: ProgressBoard) -> None:
    """Run every trial that has no result yet and is one Tune trial; `multi_fidelity.run_searches` runs the others.

    Args:
        job: What they have in common.
        teacher: Labels the images.
        images: The finished set; or the folder of one that is being made, and then some trials may end without a result.
        board: Is told how far they are.

    Raises:
        DfnasError: a trial failed for good; says which, and how to go on.
    """
    resources, trials = job.resources, job.config.trials
    todo = [number for number, trial in enumerate(trials) if not job.result_file(trial).exists()]
    todo = [number for number in todo if not isinstance(trials[number].algorithm, MultiFidelityConfig)]
    if isinstance(images, ShardFolder):
        todo = [number for number in todo if trials[number].algorithm.trains_by_epochs]
    if not todo:
        return
    places = tune.PlacementGroupFactory([resources.bundle()] * (1 + resources.scoring_workers), resources.placement)
    trainable = tune.with_parameters(_trial, job=job, teacher=teacher, images=[images], board=board)
    results = fit(
        tune.with_resources(trainable, places),
        "search",
        tune.TuneConfig(reuse_actors=True),
        resources.attempts,
        param_space={"trial": tune.grid_search(todo)},
    )
    if results.errors:
        failed = [trials[number].name for number, result in zip(todo, results, strict=True) if result.error]
        raise DfnasError(
            f"Search trial(s) {', '.join(failed)} failed {resources.attempts} times: {last_line(results.errors[0])}. "
            f"Their state is kept in {job.folder}; run the same command again to go on from there."
        )


def read_results(job: SearchJob) -> list[dict[str, Any]]:
    """Return the results of all trials, which are finished, in the order of `SearchConfig.trials`."""
    return [job.result_file(trial).read_json() for trial in job.config.trials]


def compare_architectures(
    job: SearchJob,
    found: Mapping[str, tuple[SearchSpace, Genotype]],
    teacher: Teacher,
    images: ImagesRef,
    on_scored: Callable[[int], object] = lambda done: None,
) -> dict[str, float]:
    """Train each architecture alone, all in the same way, and return minus its loss on the validation images.

    What was compared before is kept in ``comparison.json`` and not done again.

    Args:
        job: Whose `selection` says how long.
        found: Architectures by a name that tells them apart.
        teacher: Labels the images.
        images: The synthetic set.
        on_scored: Called with how many of ``found`` have a score.
    """
    file, resources = job.folder / "comparison.json", job.resources
    scores: dict[str, float] = file.read_json() if file.exists() else {}
    shared = ray.put(teacher)
    running = {
        _train_alone.options(**resources.options(), max_retries=resources.attempts - 1).remote(
            job, space, genotype, [shared], [images]
        ): name
        for name, (space, genotype) in found.items()
        if name not in scores
    }
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        scores[running.pop(done)] = ray.get(done)
        file.write_json(scores)
        on_scored(len(found) - len(running))
    return scores


@ray.remote
def _train_alone(
    job: SearchJob,
    space: SearchSpace,
    genotype: Genotype,
    teacher: list[ray.ObjectRef[Teacher]],
    images: list[ImagesRef],
) -> float:
    device, settings = worker_device(job.resources.cpus), job.config.selection
    seed = derive_seed(job.seed, "selection")
    whole = WholeSet(ray.get(images[0]))
    batches = make_batches(job, ray.get(teacher[0]), whole.images, whole, settings.batch_size, seed, device)
    scorer = StandAloneScorer(
        space,
        batches.train,
        batches.validation,
        job.config.distillation,
        settings.optimizer,
        settings.epochs,
        seed,
        job.config.precision,
    )
    return scorer([genotype])[0][SCORE]


def _trial(
    config: dict[str, Any],
    job: SearchJob,
    teacher: Teacher,
    images: list[ImagesRef | ShardFolder],
    board: ProgressBoard,
) -> None:
    try:
        _search(job.config.trials[config["trial"]], job, teacher, images[0], board)
    except ShardsMissing:
        tune.report({"paused": True})  # its state is kept; it is started again when all shards are there


def _search(
    trial: Trial, job: SearchJob, teacher: Teacher, images: ImagesRef | ShardFolder, board: ProgressBoard
) -> None:
    check_seen(job.folder)
    folder = job.trial_folder(trial)
    if job.result_file(trial).exists():
        tune.report({"finished": True})
        return
    device = worker_device(job.resources.cpus)
    source = images if isinstance(images, ShardFolder) else WholeSet(ray.get(images))
    growing = GrowingSet(source, folder / "shards.json") if job.config.start_after_shards is not None else None
    state, batches = _make_state(job, trial, teacher, source, growing, device)
    board.start(f"Search trial {trial.name}", restore(state, folder))
    write = board.writer(trial.name)
    steps = trial.algorithm.steps_to_show
    if growing is not None:
        _take_up(state, growing, batches)

    def on_progress(state: SearchState) -> None:
        if growing is not None and state.history[-1]["phase"] == "training":
            state.history[-1]["images"] = len(batches.train.ids)
        save(state, folder)
        latest = state.history[-1]
        figure = f"loss {latest['loss']:.3f}" if latest["phase"] == "training" else f"best {latest['best']:.3f}"
        write(min(len(state.history), steps), f"{trial.name}: {latest['phase']} {latest['number']}, {figure}")
        tune.report({name: value for name, value in latest.items() if isinstance(value, int | float)})
        if growing is not None:
            _take_up(state, growing, batches)

    state.run(on_progress, lambda scorer: _spread(scorer, job.resources, device))
    write(steps, f"{trial.name}: finished")  # it may have stopped early
    genotype, score = state.algorithm.best()
    finalists = state.algorithm.finalists(job.config.selection.finalists)
    result = describe_result(trial, state.algorithm.space, genotype, score, finalists, state.history)
    job.result_file(trial).write_json({**result, **({} if growing is None else {"arrivals": growing.arrivals})})


def describe_result(
    trial: Trial,
    space: SearchSpace,
    genotype: Genotype,
    own_score: float,
    finalists: Sequence[Genotype],
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return what a trial found, as it is written to its folder."""
    cost = space.cost(genotype)
    return {
        "trial": trial.name,
        "algorithm": trial.algorithm.kind,
        "space": trial.space.kind,
        "space_config": trial.space.model_dump(mode="json"),
        "seed": trial.seed,
        "genotype": space.encode(genotype),
        "macs": cost.macs,
        "params": cost.params,
        "own_score": own_score,
        "finalists": [space.encode(finalist) for finalist in finalists],
        "history": history,
    }


def _take_up(state: SearchState, growing: GrowingSet, batches: SplitBatches) -> None:
    """Serve the images that come next: those of the next epoch, or all, on which candidates are compared.

    Raises:
        ShardsMissing: the trial cannot go on yet.
    """
    algorithm = state.algorithm
    if algorithm.is_training:
        shards = growing.of_epoch(algorithm.epochs_done)
    elif not algorithm.is_finished:
        shards = growing.whole()
    else:
        return
    if shards != [int(shard) for shard in np.unique(shard_of(batches.ids))]:
        batches.take(growing.load(shards))


def make_state(
    job: SearchJob, trial: Trial, teacher: Teacher, images: SyntheticImages, device: torch.device
) -> SearchState:
    """Return a search at its beginning, everything seeded, on a finished set of images."""
    return _make_state(job, trial, teacher, WholeSet(images), None, device)[0]


def _make_state(
    job: SearchJob,
    trial: Trial,
    teacher: Teacher,
    source: ShardSource,
    growing: GrowingSet | None,
    device: torch.device,
) -> tuple[SearchState, SplitBatches]:
    """Return a search at its beginning, with the batches that it learns from."""
    config = job.config
    seed = derive_seed(job.seed, "search", trial.seed)
    seed_everything(seed)
    images = source.load(source.present()) if growing is None else growing.load(growing.of_epoch(0))
    batches = make_batches(job, teacher, images, source, trial.algorithm.batch_size, seed, device)
    space = trial.space.space(teacher.image_shape, teacher.num_classes)
    problem = SearchProblem(
        space, batches.train, batches.validation, config.distillation, job.max_macs, seed, config.precision
    )
    return SearchState(make_algorithm(trial.algorithm, problem)), batches


def save(state: SearchState, folder: Location) -> None:
    """Write a search's state into its folder."""
    buffer = BytesIO()
    torch.save(state.state_dict(), buffer)
    (folder / "state.pt").write_bytes(buffer.getbuffer())


def restore(state: SearchState, folder: Location) -> str:
    """Go on where `save` was called last, if it ever was, and say where that is."""
    file = folder / "state.pt"
    if file.exists():
        # To the CPU, where the random number generator's state belongs; weights and moments go to the model's device.
        state.load_state_dict(torch.load(BytesIO(file.read_bytes()), map_location="cpu", weights_only=True))
    return "after {phase} {number}".format(**state.history[-1]) if state.history else "from its beginning"


def make_batches(
    job: SearchJob,
    teacher: Teacher,
    images: SyntheticImages,
    source: ShardSource,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> SplitBatches:
    """Return training and validation batches of the images that are there; the split is the same for all trials."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # shared memory is read only
    config = job.config
    return SplitBatches(
        images,
        teacher,
        config.distillation,
        batch_size,
        seed,
        device,
        config.validation_fraction,
        job.seed,
        source.ids,
    )


_scorers: dict[str, Scorer] = {}  # of this worker process: the last one that it was given


@ray.remote
def _score(scorer: list[ray.ObjectRef[Scorer]], genotypes: list[Genotype], threads: int) -> list[Measurement]:
    return measure_here(scorer[0], genotypes, threads)


def measure_here(scorer: ray.ObjectRef[Scorer], genotypes: list[Genotype], threads: int) -> list[Measurement]:
    """Measure candidates in this worker, which keeps the scorer for its next task."""
    device = worker_device(threads)
    key = scorer.hex()
    if key not in _scorers:
        _scorers.clear()
        _scorers[key] = ray.get(scorer)
        _scorers[key].to(device)
    return _scorers[key](genotypes)


def _spread(scorer: Scorer, resources: SearchResources, device: torch.device) -> MeasureCandidates:
    """Return a function that measures candidates with Ray tasks, wherever the trial has a place."""
    if resources.scoring_workers == 0 and resources.gpus:
        return scorer  # the trial holds its GPU, which no task could share
    scorer.to(torch.device("cpu"))
    shared = ray.put(scorer)
    group = get_current_placement_group()

    def submit(worker: int, genotypes: list[Genotype]) -> ray.ObjectRef[list[Measurement]]:
        own = resources.scoring_workers == 0  # the trial waits meanwhile: what it holds is free
        strategy = PlacementGroupSchedulingStrategy(group, 0 if own else 1 + worker) if group else "DEFAULT"
        task = _score.options(
            **({"num_cpus": 0} if own else resources.options()),
            scheduling_strategy=strategy,
            max_retries=resources.attempts - 1,
        )
        return task.remote([shared], genotypes, resources.cpus)

    def measure(genotypes: Sequence[Genotype]) -> list[Measurement]:
        workers = max(1, resources.scoring_workers)
        parts = [list(genotypes[worker::workers]) for worker in range(workers)]
        measured = ray.get([submit(worker, part) for worker, part in enumerate(parts)])
        ordered: list[Measurement] = [{}] * len(genotypes)
        for worker, part in enumerate(measured):
            ordered[worker::workers] = part
        return ordered

    return measure
