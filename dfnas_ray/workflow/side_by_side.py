"""Many searches, or many trainings, at once: the cells of a comparison, spread over all workers.

The results lie where each stage would put them. The stage then finds them, and only has to choose and to write its
record. A command that is interrupted loses no more than in a stage. With one worker there is nothing to gain, and the
stages run one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch

from dfnas_ray import formatting
from dfnas_ray.algorithms.selection import selection_batches, train_alone
from dfnas_ray.algorithms.trials import SearchJob, run_trial
from dfnas_ray.execution.base import Work
from dfnas_ray.progress import Board, Write
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SplitBatches
from dfnas_ray.training.checkpoints import RAY_FOLDER, FileCheckpoints
from dfnas_ray.training.retraining import RetrainingJob, train_network
from dfnas_ray.workflow.retraining import Retraining
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Stage

S = TypeVar("S", bound=Stage[Any])


class SearchTask(NamedTuple):
    """One worker's part of a search: a trial, or the training of a finalist."""

    search: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.search}"


class FinalistScore(NamedTuple):
    """A finalist's score, and the seconds that it took."""

    score: float
    seconds: float


@dataclass(frozen=True)
class LabelledBoard:
    """A board for workers of several searches, which may have the same names: a label tells them apart."""

    board: Board
    label: str

    def writer(self, worker: str) -> Write:
        """See `Board`."""
        return self.board.writer(f"{self.label}: {worker}")

    def start(self, worker: str, where: str) -> None:
        """See `Board`."""
        self.board.start(f"{worker} ({self.label})", where)


@dataclass(frozen=True)
class _Searches:
    """The data for work on several searches.

    Attributes:
        jobs: The jobs by the searches' names.
        images: The images by the searches' names.
    """

    jobs: Mapping[str, SearchJob]
    images: Mapping[str, Shared[SyntheticImages]]
    teacher: Shared[Teacher]


@dataclass(frozen=True)
class RunTrials(_Searches):
    """The work on search trials: each continues from the state in its folder to its result."""

    board: Board

    def __call__(self, device: torch.device) -> Callable[[SearchTask], float]:
        """Return the function that runs one trial and returns the seconds that it took."""

        def run(task: SearchTask) -> float:
            started, job = time.monotonic(), self.jobs[task.search]
            trial = next(trial for trial in job.config.trials if trial.name == task.name)
            images, board = self.images[task.search].get(), LabelledBoard(self.board, task.search)
            run_trial(trial, job, self.teacher.get(), images, device, board)
            return time.monotonic() - started

        return run


@dataclass(frozen=True)
class TrainFinalists(_Searches):
    """The work on finalists: each is trained alone.

    Attributes:
        found: The finalists of each search, by `selection.name_of`.
    """

    found: Mapping[str, Mapping[str, Architecture]]

    def __call__(self, device: torch.device) -> Callable[[SearchTask], FinalistScore]:
        """Return the function that trains one finalist. It keeps the batches of the last search."""
        kept: dict[str, SplitBatches] = {}

        def train(task: SearchTask) -> FinalistScore:
            started, job = time.monotonic(), self.jobs[task.search]
            if task.search not in kept:
                kept.clear()
                images = self.images[task.search].get()
                kept[task.search] = selection_batches(job, self.teacher.get(), images, device)
            architecture = self.found[task.search][task.name]
            score = train_alone(job, architecture.space, architecture.genotype, kept[task.search])
            return FinalistScore(score, time.monotonic() - started)

        return train


@dataclass(frozen=True)
class TrainNetworks:
    """The work on networks: each is trained from its last epoch to the end, and leaves its state in its folder.

    Attributes:
        jobs: The jobs by the networks' names.
        images: The images by the networks' names.
    """

    jobs: Mapping[str, RetrainingJob]
    images: Mapping[str, Shared[SyntheticImages]]
    teacher: Shared[Teacher]
    board: Board

    def __call__(self, device: torch.device) -> Callable[[str], float]:
        """Return the function that trains one network and returns the seconds that it took."""

        def train(name: str) -> float:
            started, job = time.monotonic(), self.jobs[name]
            checkpoints, board = FileCheckpoints.of(job), LabelledBoard(self.board, name)
            train_network(job, self.teacher.get(), self.images[name].get(), device, checkpoints, board)
            return time.monotonic() - started

        return train


def search_side_by_side(session: Session, searches: Mapping[str, Search]) -> None:
    """Do the work of several searches, whose images are finished. `Stage.finish` of each then finds its result.

    Nothing is done if there is only one worker, if trackers follow each search, or for algorithms that spread their
    candidates over all workers themselves.

    Args:
        session: The session of the command.
        searches: The searches by the names in progress and errors.
    """
    todo = _unfinished(searches)
    if len(todo) < 2 or not _has_room(session, next(iter(todo.values()))) or session.config.tracking.is_on:
        return
    executor, teacher = session.executor, session.shared_teacher
    jobs = {name: search.job for name, search in todo.items()}
    images = {name: search.source.images(executor) for name, search in todo.items()}
    trials = {
        SearchTask(name, trial.name): trial
        for name, search in todo.items()
        for trial in search.without_result(search.config.trials)
        if not trial.algorithm.measures_population
    }

    def has_run(part: SearchTask, seconds: float) -> None:
        todo[part.search].seconds_before += seconds

    total = sum(trial.algorithm.steps_to_show for trial in trials.values())
    what = f"Searching {formatting.plural(len(todo), 'time')}"
    with session.listener.task(what, total, "epoch") as task, executor.show(task) as board:
        run = RunTrials(jobs, images, teacher, board)
        executor.map_all(Work("search", "trial", run), list(trials), has_run)

    found = {
        name: search.unscored_finalists()
        for name, search in todo.items()
        if not search.without_result(search.config.trials)
    }
    parts = [SearchTask(name, finalist) for name, finalists in found.items() for finalist in finalists]
    scored = 0
    with session.listener.task("Training each finalist alone", len(parts), "architecture") as task:

        def keep(part: SearchTask, result: FinalistScore) -> None:
            nonlocal scored
            scored += 1
            todo[part.search].keep_score(part.name, result.score)
            todo[part.search].seconds_before += result.seconds
            task.advance_to(scored, part.search)

        executor.map_all(Work("search", "finalist", TrainFinalists(jobs, images, teacher, found)), parts, keep)


def train_side_by_side(session: Session, networks: Mapping[str, Retraining]) -> None:
    """Train several networks, whose images are finished. `Stage.finish` of each then finds its network.

    Nothing is done if there is only one worker, or if several workers train one network together.

    Args:
        session: The session of the command.
        networks: The networks by the names in progress and errors.
    """
    todo = {name: stage for name, stage in _unfinished(networks).items() if stage.num_workers() == 1}
    todo = {name: stage for name, stage in todo.items() if not (stage.location / RAY_FOLDER).exists()}  # Ray Train's
    if len(todo) < 2 or not _has_room(session, next(iter(todo.values()))):
        return
    executor = session.executor
    total = sum(stage.config.epochs for stage in todo.values())
    what = f"Training {formatting.plural(len(todo), 'network')}"
    with session.listener.task(what, total, "epoch") as task, executor.show(task) as board:
        work = TrainNetworks(
            {name: stage.job for name, stage in todo.items()},
            {name: stage.source.images(executor) for name, stage in todo.items()},
            session.shared_teacher,
            board,
        )

        def keep(name: str, seconds: float) -> None:
            stage = todo[name]
            stage.begin()
            stage.complete(stage.keep(FileCheckpoints.of(stage.job).trained(stage.job), seconds))

        executor.map_all(Work("retraining", "network", work), list(todo), keep)


def _unfinished(stages: Mapping[str, S]) -> dict[str, S]:
    """Return the stages that are not finished, each under one name: two variants may share a stage."""
    first: dict[str, str] = {}  # the stage that is finished first, so that it records the time
    for name, stage in stages.items():
        if not stage.is_done:
            first.setdefault(str(stage.location), name)
    return {name: stages[name] for name in first.values()}


def _has_room(session: Session, stage: Stage[Any]) -> bool:
    """Return whether two workers of a stage can run at once."""
    assert stage.workers is not None, "a stage that is spread has workers"
    stage.check_fits()
    return session.executor.room_for(session.config.cluster.of(stage.workers)) > 1
