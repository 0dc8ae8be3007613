"""Populations: each is a Tune experiment of its own, in which every candidate is a trial.

Which candidates are stopped depends on the order in which results arrive, as it does with any asynchronous halving: two
runs may keep different ones, but whatever was trained to the same rung has the same score in both. After a break the
scheduler knows all earlier results, and a candidate is compared once more at the last rung that it reached before it is
trained on.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray import tune

from dfnas_ray.algorithms.base import SCORE, Measurement
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig, Population
from dfnas_ray.algorithms.population import (
    CandidateFiles,
    CandidateWorker,
    config_of,
    describe_population,
    seed_of,
    space_of,
)
from dfnas_ray.algorithms.proposals import ArchitectureStudy
from dfnas_ray.algorithms.trials import SearchJob
from dfnas_ray.errors import DfnasError, StorageError
from dfnas_ray.execution.ray.connection import worker_device
from dfnas_ray.execution.ray.errors import last_line
from dfnas_ray.execution.ray.halving import NumberedHalving
from dfnas_ray.execution.ray.proposals import ArchitectureSearch
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.execution.ray.tune import fit
from dfnas_ray.progress import Board
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)

_BUDGET = "budget"  # a rung as an exact power of the reduction factor: the rungs' epochs are rounded


def search_population(
    job: SearchJob, trial: Trial, teacher: Shared[Teacher], images: Shared[SyntheticImages], board: Board, room: int
) -> None:
    """Run a multi-fidelity search. The cluster has, or will have, room for ``room`` candidates at once.

    Raises:
        DfnasError: candidates failed for good. The message says how to continue.
    """
    config, space = config_of(trial), space_of(trial, teacher.get())
    space.check_limit(job.max_macs, job.min_macs)
    drawn = None
    if config.proposals == "random":
        drawn = config.draw(space, job.max_macs, seed_of(job, trial), job.min_macs)
    population = Experiment(job, trial, space).finish(drawn, teacher, images, board, room)
    describe_population(job, trial, space, population).write(job.result_file(trial))


def measure_population(
    job: SearchJob,
    trial: Trial,
    genotypes: Sequence[Genotype],
    teacher: Shared[Teacher],
    images: Shared[SyntheticImages],
    board: Board,
) -> list[Measurement]:
    """Train given architectures, all as one population; see `Executor.measure_population`."""
    space = space_of(trial, teacher.get())
    population = Experiment(job, trial, space).finish(list(dict.fromkeys(genotypes)), teacher, images, board)
    measured = {candidate.genotype: population.config.measurement(candidate) for candidate in population.candidates}
    return [measured[space.encode(genotype)] for genotype in genotypes]


class Experiment:
    """One population and its files."""

    def __init__(self, job: SearchJob, trial: Trial, space: SearchSpace):
        self.job, self.trial, self.space, self.config = job, trial, space, config_of(trial)
        self.seed = seed_of(job, trial)
        self.files = CandidateFiles(job.trial_folder(trial), self.config, space)

    def finish(
        self,
        given: Sequence[Genotype] | None,
        teacher: Shared[Teacher],
        images: Shared[SyntheticImages],
        board: Board,
        room: int | None = None,
    ) -> Population:
        """Train all unfinished candidates, and return the population.

        Without ``given`` candidates, Optuna proposes them. A proposal learns from earlier results, so it is made only
        when there is ``room`` to train it.
        """
        job, config, resources = self.job, self.config, self.job.resources
        population = Population(config, self.files.candidates())
        over = [candidate for candidate in population.candidates if not config.is_open(candidate)]
        search_alg = param_space = None
        if given is None:
            study = ArchitectureStudy(population, self.space, job.max_macs, self.seed, job.min_macs)
            search_alg = ArchitectureSearch(study)
            todo = config.candidates - len(over)
        else:
            waiting = [
                {"number": number, "genotype": text}
                for number, text in self.files.waiting(given, self.space, population)
            ]
            param_space = {"candidate": tune.grid_search(waiting)}
            todo = len(waiting)
        if todo <= 0:
            return population
        places = tune.PlacementGroupFactory([resources.bundle()])
        trainable = tune.with_parameters(
            CandidateTrial, job=job, trial=self.trial, teacher=teacher, images=images, board=board
        )
        results = fit(
            tune.with_resources(trainable, places),
            self.trial.name,
            tune.TuneConfig(
                search_alg=search_alg,
                scheduler=self.scheduler(population),
                num_samples=todo if param_space is None else 1,
                max_concurrent_trials=config.concurrency or (room if given is None else None),
                reuse_actors=True,
            ),
            resources.attempts,
            param_space,
            [Closing(self.files, config, self.trial.name, len(over), board)],
        )
        if results.errors:
            raise DfnasError(
                f"{len(results.errors)} candidate(s) of {self.trial.name} failed {resources.attempts} times, the first with: "
                f"{last_line(results.errors[0], 'search')}. What is finished is kept in {job.folder}; run the same "
                "command again to go on."
            )
        return self._closed()

    def _closed(self) -> Population:
        """Return the population after Tune has ended. A candidate that could still be trained was stopped."""
        population = Population(self.config, self.files.candidates())
        for candidate in population.candidates:
            if self.config.is_open(candidate):
                self.files.close(candidate, is_stopped=True)
        return population

    def scheduler(self, population: Population) -> NumberedHalving:
        """Return the scheduler, which knows all earlier results of the candidates."""
        config, rungs = self.config, self.config.rungs
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")  # all diverged: reported at the end
        np.random.seed(derive_seed(self.seed, "brackets") % 2**32)  # Tune assigns brackets with numpy's global state
        scheduler = NumberedHalving(
            lambda trial_config: trial_config["candidate"]["number"],
            time_attr=_BUDGET,
            metric=SCORE,
            mode="max",
            grace_period=1,
            max_t=_budget(config, rungs[-1]),
            reduction_factor=config.reduction_factor,
            brackets=len(rungs) if config.scheduler == "hyperband" else 1,
        )
        for candidate in population.candidates:
            told = candidate.results
            if config.is_open(candidate):
                told = told[:-1]  # the last one is told again before training goes on: its decision is not known
            scheduler.tell(candidate.number, [(_budget(config, r["epochs"]), config.score(r)) for r in told])
        return scheduler


class CandidateTrial(tune.Trainable):  # type: ignore[misc]  # Ray has no types here
    """Trains one candidate after the other in one process. A step trains to the next rung."""

    def setup(
        self,
        config: Mapping[str, Any],
        job: SearchJob,
        trial: Trial,
        teacher: Shared[Teacher],
        images: Shared[SyntheticImages],
        board: Board,
    ) -> None:
        """Prepare this process."""
        check_seen(job.folder)
        device = worker_device(job.resources.cpus)
        self.worker = CandidateWorker(job, trial, teacher.get(), images.get(), device, board)
        self.reset_config(config)

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Only remember the candidate: until the first step Tune may give it to another process instead.

        Its state is loaded in the first step, where a failure is retried, as a failure in training is.
        """
        self.proposed: Mapping[str, Any] | None = new_config["candidate"]
        return True

    def step(self) -> Mapping[str, Any]:
        """Train to the next rung, and return the candidate's result there."""
        worker = self.worker
        if self.proposed is not None:
            worker.take_up(self.proposed["number"], self.proposed["genotype"])
            self.proposed = None
            if worker.candidate.results:
                return self._result()  # measured by a process that was lost: the scheduler may not know it
        worker.advance()
        return self._result()

    def _result(self) -> Mapping[str, Any]:
        candidate, config = self.worker.candidate, self.worker.settings
        return {
            **config.measurement(candidate),
            _BUDGET: _budget(config, candidate.epochs),
            "done": not config.is_open(candidate),
        }


class Closing(tune.Callback):  # type: ignore[misc]  # Ray has no types here
    """Records in the driver that a candidate was stopped, and deletes the network of each finished candidate."""

    def __init__(self, files: CandidateFiles, config: MultiFidelityConfig, name: str, num_over: int, board: Board):
        self.files, self.config, self.name, self.num_over = files, config, name, num_over
        self.write = board.writer(name)

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        """Close the candidate's files."""
        number = trial.config["candidate"]["number"]
        try:
            candidate = self.files.read(number)
            if candidate is not None:
                self.files.close(candidate, is_stopped=self.config.is_open(candidate))
        except StorageError as error:
            # If it were raised, Tune would treat it as the candidate's failure, and train on. `_closed` records it.
            logger.warning("The end of candidate %d of %s could not be recorded: %s", number, self.name, error)
        self.num_over += 1
        self.write(self.num_over, f"{self.name}: {self.num_over} candidates")


def _budget(config: MultiFidelityConfig, epochs: int) -> int:
    return int(config.reduction_factor ** config.rungs.index(epochs))
