"""Searches as Ray Tune trials, their candidates scored by Ray tasks.

A trial keeps its state in the stage's folder after every epoch and generation. A trial that Tune starts again, or that a
later command starts again, goes on from there: nothing has to be unpickled, and no snapshot can lag behind.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias

import ray
import torch
from ray import tune
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dfnas_ray.algorithms.base import SCORE, MeasureCandidates, Measurement, Scorer, SearchProblem, SearchState
from dfnas_ray.algorithms.config import SearchConfig, Trial
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig
from dfnas_ray.algorithms.stand_alone import StandAloneScorer
from dfnas_ray.distributed.board import ProgressBoard
from dfnas_ray.distributed.config import SearchResources
from dfnas_ray.distributed.runtime import worker_device
from dfnas_ray.distributed.tune_runs import fit, last_line
from dfnas_ray.errors import DfnasError
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages, load_shards
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SyntheticBatches, split_mask

ImagesRef: TypeAlias = "ray.ObjectRef[SyntheticImages]"


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

    def results(self) -> list[dict[str, Any]]:
        """Return what all trials found, in the order of `SearchConfig.trials`."""
        return [self.result_file(trial).read_json() for trial in self.config.trials]


@ray.remote(num_cpus=0)
def load_images(folder: Location, manifest: dict[str, Any]) -> SyntheticImages:
    """Read the shards on some node into the object store, once for all trials and workers."""
    return load_shards(folder, manifest)


def run_trials(job: SearchJob, teacher: Teacher, images: ImagesRef, board: ProgressBoard) -> None:
    """Run every trial that is one Tune trial; its result is then in its folder.

    `multi_fidelity.run_searches` runs the others, each a Tune experiment.

    Raises:
        DfnasError: a trial failed for good; says which, and how to go on.
    """
    resources, trials = job.resources, job.config.trials
    numbers = [n for n, trial in enumerate(trials) if not isinstance(trial.algorithm, MultiFidelityConfig)]
    if not numbers:
        return
    places = tune.PlacementGroupFactory([resources.bundle()] * (1 + resources.scoring_workers), resources.placement)
    trainable = tune.with_parameters(_trial, job=job, teacher=teacher, images=[images], board=board)
    results = fit(
        tune.with_resources(trainable, places),
        "search",
        tune.TuneConfig(reuse_actors=True),
        resources.attempts,
        param_space={"trial": tune.grid_search(numbers)},
    )
    if results.errors:
        failed = [trials[n].name for n in numbers if not job.result_file(trials[n]).exists()]
        raise DfnasError(
            f"Search trial(s) {', '.join(failed)} failed {resources.attempts} times: {last_line(results.errors[0])}. "
            f"Their state is kept in {job.folder}; run the same command again to go on from there."
        )


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
    train, validation = make_batches(job, ray.get(teacher[0]), ray.get(images[0]), settings.batch_size, seed, device)
    scorer = StandAloneScorer(
        space,
        train,
        validation,
        job.config.distillation,
        settings.optimizer,
        settings.epochs,
        seed,
        job.config.precision,
    )
    return scorer([genotype])[0][SCORE]


def _trial(
    config: dict[str, Any], job: SearchJob, teacher: Teacher, images: list[ImagesRef], board: ProgressBoard
) -> None:
    trial = job.config.trials[config["trial"]]
    folder = job.trial_folder(trial)
    if job.result_file(trial).exists():
        tune.report({"finished": True})
        return
    device = worker_device(job.resources.cpus)
    state = _make_state(job, trial, teacher, ray.get(images[0]), device)
    if (folder / "state.pt").exists():
        state.load_state_dict(torch.load(BytesIO((folder / "state.pt").read_bytes()), weights_only=True))
    where = "after {phase} {number}".format(**state.history[-1]) if state.history else "from its beginning"
    board.start(f"Search trial {trial.name}", where)
    write = board.writer(trial.name)
    steps = trial.algorithm.steps_to_show

    def on_progress(state: SearchState) -> None:
        buffer = BytesIO()
        torch.save(state.state_dict(), buffer)
        (folder / "state.pt").write_bytes(buffer.getbuffer())
        latest = state.history[-1]
        figure = f"loss {latest['loss']:.3f}" if latest["phase"] == "training" else f"best {latest['best']:.3f}"
        write(min(len(state.history), steps), f"{trial.name}: {latest['phase']} {latest['number']}, {figure}")
        tune.report({name: value for name, value in latest.items() if isinstance(value, int | float)})

    state.run(on_progress, lambda scorer: _spread(scorer, job.resources, device))
    write(steps, f"{trial.name}: finished")  # it may have stopped early
    genotype, score = state.algorithm.best()
    finalists = state.algorithm.finalists(job.config.selection.finalists)
    job.result_file(trial).write_json(
        describe_result(trial, state.algorithm.space, genotype, score, finalists, state.history)
    )


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


def _make_state(
    job: SearchJob, trial: Trial, teacher: Teacher, images: SyntheticImages, device: torch.device
) -> SearchState:
    config = job.config
    seed = derive_seed(job.seed, "search", trial.seed)
    seed_everything(seed)
    train, validation = make_batches(job, teacher, images, trial.algorithm.batch_size, seed, device)
    space = trial.space.space(teacher.image_shape, teacher.num_classes)
    problem = SearchProblem(space, train, validation, config.distillation, job.max_macs, seed, config.precision)
    return SearchState(trial.algorithm.algorithm(problem))


def make_batches(
    job: SearchJob, teacher: Teacher, images: SyntheticImages, batch_size: int, seed: int, device: torch.device
) -> tuple[SyntheticBatches, SyntheticBatches]:
    """Return training and validation batches; the split is the same for all trials."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # shared memory is read only
    config = job.config
    mask = split_mask(images.ids, config.validation_fraction, job.seed)
    train, validation = (
        SyntheticBatches(images.select(side), teacher, config.distillation, batch_size, seed, device)
        for side in (~mask, mask)
    )
    return train, validation


_scorers: dict[str, Scorer] = {}  # of this worker process: the last one that it was given


@ray.remote
def _score(scorer: list[ray.ObjectRef[Scorer]], genotypes: list[Genotype], threads: int) -> list[Measurement]:
    device = worker_device(threads)
    key = scorer[0].hex()
    if key not in _scorers:
        _scorers.clear()
        _scorers[key] = ray.get(scorer[0])
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
