"""Multi-fidelity searches: each is a Tune experiment of its own, in which every candidate is a trial.

A candidate's results, and after every epoch its network, lie in the trial's folder; a candidate that Tune starts again, or
that a later command starts again, goes on from its last epoch. Which candidates are stopped depends on the order in
which results arrive, as it does with any asynchronous halving: two runs may keep different ones, but whatever was
trained to the same rung has the same score in both. After a break the scheduler knows all earlier results, and a
candidate is compared once more at the last rung that it reached before it is trained on.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from dfnas_ray.algorithms.base import SCORE, Measurement
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.multi_fidelity import Candidate, MultiFidelityConfig, Population
from dfnas_ray.algorithms.stand_alone import CandidateTraining
from dfnas_ray.errors import DfnasError, StorageError
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.cluster import worker_device
from dfnas_ray.execution.ray.halving import NumberedHalving
from dfnas_ray.execution.ray.images import ImagesRef
from dfnas_ray.execution.ray.proposals import ArchitectureSearch
from dfnas_ray.execution.ray.search_trials import SearchJob, describe_result, make_batches
from dfnas_ray.execution.ray.shared_storage import check_seen
from dfnas_ray.execution.ray.tune_runs import fit, last_line
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.arrivals import WholeSet
from dfnas_ray.storage.location import Location
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)

_BUDGET = "budget"  # epochs in multiples of the lowest rung: an exact power of the factor, whatever was rounded


def run_searches(job: SearchJob, teacher: Teacher, images: ImagesRef, board: ProgressBoard, room: int) -> None:
    """Run every multi-fidelity search of a stage, one after the other; its result is then in its folder.

    Args:
        job: What they have in common.
        teacher: Labels the images.
        images: The synthetic set.
        board: Shows how many candidates are finished.
        room: Candidates for which the cluster has room at once, or will have when it has grown.

    Raises:
        DfnasError: candidates failed for good; says how to go on.
    """
    for trial in job.config.trials:
        if not isinstance(trial.algorithm, MultiFidelityConfig) or job.result_file(trial).exists():
            continue
        space = _space(trial, teacher)
        space.check_limit(job.max_macs)
        run = _Experiment(job, trial, space)
        drawn = None
        if trial.algorithm.proposals == "random":
            drawn = trial.algorithm.draw(space, job.max_macs, run.seed)
        population = run.finish(drawn, teacher, images, board, room)
        best, score = population.best()
        finalists = [space.decode(c.genotype) for c in population.ranked()[: job.config.selection.finalists]]
        result = describe_result(trial, space, space.decode(best.genotype), score, finalists, population.history())
        job.result_file(trial).write_json(result)


def measure_population(
    job: SearchJob,
    trial: Trial,
    genotypes: Sequence[Genotype],
    teacher: Teacher,
    images: ImagesRef,
    board: ProgressBoard,
) -> list[Measurement]:
    """Train given architectures, all as one population, and return the epochs reached and the score of each.

    What was measured before in the trial's folder is not done again. `MultiFidelityConfig.rank` makes scores of the
    measurements. No limit is applied.

    Args:
        job: Whose settings say how networks are trained, and whose folder keeps the trial's.
        trial: Names the folder; with its algorithm, its space and its seed.
        genotypes: Of the trial's space; one that is given twice is trained once.
        teacher: Labels the images.
        images: The synthetic set.
        board: Shows how many are finished.

    Raises:
        DfnasError: candidates failed for good; says how to go on.
    """
    space = _space(trial, teacher)
    population = _Experiment(job, trial, space).finish(list(dict.fromkeys(genotypes)), teacher, images, board)
    measured = {candidate.genotype: population.config.measurement(candidate) for candidate in population.candidates}
    return [measured[space.encode(genotype)] for genotype in genotypes]


class _Experiment:
    """One population, and where it is kept."""

    def __init__(self, job: SearchJob, trial: Trial, space: SearchSpace):
        assert isinstance(trial.algorithm, MultiFidelityConfig)
        self.job, self.trial, self.space, self.config = job, trial, space, trial.algorithm
        self.seed = derive_seed(job.seed, "search", trial.seed)
        self.files = _Files(job.trial_folder(trial))

    def finish(
        self,
        given: Sequence[Genotype] | None,
        teacher: Teacher,
        images: ImagesRef,
        board: ProgressBoard,
        room: int | None = None,
    ) -> Population:
        """Train what is not finished, and return all; without ``given`` candidates, Optuna proposes them.

        A proposal learns from those before it: none is made before there is ``room`` to train it.
        """
        job, config, resources = self.job, self.config, self.job.resources
        population = Population(config, self.files.candidates())
        over = [candidate for candidate in population.candidates if not config.is_open(candidate)]
        search_alg = param_space = None
        if given is None:
            search_alg = ArchitectureSearch(population, self.space, job.max_macs, self.seed)
            todo = config.candidates - len(over)
        else:
            waiting = self._waiting(given, population)
            param_space = {"candidate": tune.grid_search(waiting)}
            todo = len(waiting)
        if todo <= 0:
            return population
        places = tune.PlacementGroupFactory([resources.bundle()])
        trainable = tune.with_parameters(
            _CandidateTrial, job=job, trial=self.trial, teacher=teacher, images=[images], board=board
        )
        results = fit(
            tune.with_resources(trainable, places),
            self.trial.name,
            tune.TuneConfig(
                search_alg=search_alg,
                scheduler=self._scheduler(population),
                num_samples=todo if param_space is None else 1,
                max_concurrent_trials=config.concurrency or (room if given is None else None),
                reuse_actors=True,
            ),
            resources.attempts,
            param_space,
            [_Closing(self.files, config, self.trial.name, len(over), board)],
        )
        if results.errors:
            raise DfnasError(
                f"{len(results.errors)} candidate(s) of {self.trial.name} failed {resources.attempts} times, the first with: "
                f"{last_line(results.errors[0])}. What is finished is kept in {job.folder}; run the same command again to go "
                "on."
            )
        return self._closed()

    def _closed(self) -> Population:
        """Return all candidates after Tune is done with them: whoever could still be trained was stopped."""
        population = Population(self.config, self.files.candidates())
        for candidate in population.candidates:
            if self.config.is_open(candidate):
                self.files.close(candidate, is_stopped=True)
        return population

    def _waiting(self, given: Sequence[Genotype], population: Population) -> list[dict[str, Any]]:
        """Return those of the given candidates that are not over."""
        known = {candidate.number: candidate for candidate in population.candidates}
        waiting = []
        for number, genotype in enumerate(given):
            text = self.space.encode(genotype)
            candidate = known.get(number)
            if candidate is not None and candidate.genotype != text:
                raise StorageError(
                    f"{self.files.results(number)} holds {candidate.genotype}, where {text} should be. Delete "
                    f"{self.files.folder} and run again."
                )
            if candidate is None or self.config.is_open(candidate):
                waiting.append({"number": number, "genotype": text})
        return waiting

    def _scheduler(self, population: Population) -> NumberedHalving:
        """Return the scheduler, which knows already what candidates that are over or under way have shown."""
        config, rungs = self.config, self.config.rungs
        warnings.filterwarnings("ignore", message="All-NaN slice encountered")  # all diverged: said at the end
        np.random.seed(derive_seed(self.seed, "brackets") % 2**32)  # with numpy's global state Tune deals out brackets
        scheduler = NumberedHalving(
            _number_of,
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
                told = told[:-1]  # the last one is told again before it goes on: who knows what was decided then
            scheduler.tell(candidate.number, [(_budget(config, r["epochs"]), config.score(r)) for r in told])
        return scheduler


def _number_of(config: Mapping[str, Any]) -> int:
    number: int = config["candidate"]["number"]
    return number


class _Files:
    """The files of a population's candidates, by number."""

    def __init__(self, folder: Location):
        self.folder = folder

    def results(self, number: int) -> Location:
        return self.folder / f"candidate-{number:05d}.json"

    def state(self, number: int) -> Location:
        return self.folder / f"candidate-{number:05d}.pt"

    def candidates(self) -> list[Candidate]:
        names = [name for name in self.folder.file_names() if name.startswith("candidate-") and name.endswith(".json")]
        return [Candidate(**(self.folder / name).read_json()) for name in names]

    def read(self, number: int) -> Candidate | None:
        file = self.results(number)
        return Candidate(**file.read_json()) if file.exists() else None

    def write(self, candidate: Candidate) -> None:
        self.results(candidate.number).write_json(asdict(candidate))

    def close(self, candidate: Candidate, is_stopped: bool) -> None:
        """Note that a candidate is over; its network is not needed any more."""
        if is_stopped:
            candidate.is_stopped = True
            self.write(candidate)
        self.state(candidate.number).delete_file()


class _CandidateTrial(tune.Trainable):  # type: ignore[misc]  # Ray has no types here
    """Trains one candidate after the other in one process; a step is the way to the next rung."""

    def setup(
        self,
        config: dict[str, Any],
        job: SearchJob,
        trial: Trial,
        teacher: Teacher,
        images: list[ImagesRef],
        board: ProgressBoard,
    ) -> None:
        assert isinstance(trial.algorithm, MultiFidelityConfig)
        check_seen(job.folder)
        self.device = worker_device(job.resources.cpus)
        self.job, self.search, self.board, self.settings = job, trial, board, trial.algorithm
        self.files = _Files(job.trial_folder(trial))
        self.space = _space(trial, teacher)
        self.seed = derive_seed(job.seed, "search", trial.seed)
        whole = WholeSet(ray.get(images[0]))
        self.batches = make_batches(
            job, teacher, whole.images, whole, trial.algorithm.batch_size, self.seed, self.device
        )
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Only remember the candidate: until the first step Tune may give it to another process instead.

        What is taken up in a step may also fail and be tried again, as training may.
        """
        self.proposed: dict[str, Any] | None = new_config["candidate"]
        return True

    def step(self) -> dict[str, Any]:
        if self.proposed is not None:
            self._take_up(self.proposed)
            self.proposed = None
            if self.candidate.results:
                return self._result()  # of a process that was lost: the scheduler may not have seen it
        candidate, config = self.candidate, self.settings
        if config.is_open(candidate):
            epochs = next(rung for rung in config.rungs if rung > candidate.epochs)
            candidate.add(epochs, self.training.train_to(epochs, self._keep))
            self.files.write(candidate)
        return self._result()

    def _result(self) -> dict[str, Any]:
        candidate, config = self.candidate, self.settings
        return {
            **config.measurement(candidate),
            _BUDGET: _budget(config, candidate.epochs),
            "done": not config.is_open(candidate),
        }

    def _take_up(self, proposed: dict[str, Any]) -> None:
        """Begin a candidate, or go on with one that broke off."""
        number, text = proposed["number"], proposed["genotype"]
        found = self.files.read(number)
        if found is not None and found.genotype != text:  # of a command that was at work here at the same time
            logger.warning("Candidate %d of %s is another one now, and begins anew.", number, self.search.name)
            self.files.state(number).delete_file()
            found = None
        self.candidate = found or Candidate(number, text)
        self.training = CandidateTraining(
            self.space,
            self.space.decode(text),
            self.batches.train,
            self.batches.validation,
            self.job.config.distillation,
            self.settings.optimizer,
            self.settings.rungs,
            self.seed,
            self.job.config.precision,
        )
        state = self.files.state(number)
        if state.exists():
            loaded = torch.load(BytesIO(state.read_bytes()), map_location=self.device, weights_only=True)
            self.training.load_state_dict(loaded)
        else:
            self.files.write(self.candidate)  # a candidate that was proposed is not forgotten
        self.board.start(f"Candidate {number} of {self.search.name}", f"after epoch {self.training.epochs_done}")

    def _keep(self) -> None:
        buffer = BytesIO()
        torch.save(self.training.state_dict(), buffer)
        self.files.state(self.candidate.number).write_bytes(buffer.getbuffer())


class _Closing(tune.Callback):  # type: ignore[misc]  # Ray has no types here
    """Notes in the driver that a candidate was stopped, and deletes the network of each that is over."""

    def __init__(self, files: _Files, config: MultiFidelityConfig, name: str, num_over: int, board: ProgressBoard):
        self.files, self.config, self.name, self.num_over = files, config, name, num_over
        self.write = board.writer(name)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["candidate"]["number"]
        try:
            candidate = self.files.read(number)
            if candidate is not None:
                self.files.close(candidate, is_stopped=self.config.is_open(candidate))
        except StorageError as error:
            # Raised here, Tune would take it for a failure of the candidate, and train on. It is noted at the end.
            logger.warning("That candidate %d of %s is over could not be noted: %s", number, self.name, error)
        self.num_over += 1
        self.write(self.num_over, f"{self.name}: {self.num_over} candidates")


def _space(trial: Trial, teacher: Teacher) -> SearchSpace:
    space: SearchSpace = trial.space.space(teacher.image_shape, teacher.num_classes)
    return space


def _budget(config: MultiFidelityConfig, epochs: int) -> int:
    return int(config.reduction_factor ** config.rungs.index(epochs))
