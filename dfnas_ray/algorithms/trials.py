"""One trial: a search from images to a result, in any process.

A trial saves its state in its folder after every epoch and generation. When it is started again, it resumes from there.
Nothing has to be unpickled, and no snapshot can be out of date.

Where images are still being made (`search.start_after_shards`), a trial adds new shards between two epochs. It never
waits for one. To compare candidates it needs the whole set; until then it ends with `ShardsMissing`, and it is started
again when the set is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.algorithms.base import (
    HistoryEntry,
    MeasureCandidates,
    Scorer,
    SearchProblem,
    SearchState,
    make_algorithm,
)
from dfnas_ray.algorithms.config import SearchConfig, Trial
from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.errors import GenotypeError
from dfnas_ray.progress import Board
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed, seed_everything
from dfnas_ray.storage.altered import Say, load_or_set_aside, read_or_remove
from dfnas_ray.storage.arrivals import GrowingSet, ShardFolder, ShardSource, WholeSet
from dfnas_ray.storage.location import Count, JsonObject, Location
from dfnas_ray.storage.shards import SyntheticImages, shard_of
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.training.batches import SplitBatches


class HistoryPoint(BaseModel):
    """The record of one epoch or one round of candidates; other fields are metrics.

    Attributes:
        phase: ``training`` or ``sampling``.
        number: The number of the epoch or the round, from 1.
        best: The score of the best candidate so far.
        scores: The scores of the round's candidates.
        genotypes: The genotypes of the round's candidates.
    """

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="constants")
    __pydantic_extra__: dict[str, Count | float]

    phase: str
    number: Count
    best: float | None = None
    scores: tuple[float, ...] | None = None
    genotypes: tuple[str, ...] | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics, by name."""
        return dict(self.__pydantic_extra__)


class TrialResult(BaseModel):
    """The result of a trial, as it is written to its folder.

    Attributes:
        trial: The name of the trial.
        space_config: The settings of the search space.
        own_score: The score of the genotype, on the algorithm's own scale.
        finalists: Genotypes to be compared by stand-alone training, the best first.
        history: One entry per epoch and per round of candidates.
        arrivals: The new shards of each epoch, if the trial started before all images were ready.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    trial: str
    algorithm: str
    space: str
    space_config: JsonObject
    seed: int
    genotype: str
    macs: Count
    params: Count
    own_score: float
    finalists: tuple[str, ...] = Field(min_length=1)
    history: tuple[HistoryPoint, ...]
    arrivals: tuple[tuple[int, ...], ...] | None = None

    def write(self, file: Location) -> None:
        """Write the result as JSON."""
        file.write_model(self, exclude_none=True)


@dataclass(frozen=True)
class SearchJob:
    """What all trials of one search share."""

    config: SearchConfig
    resources: SearchResources
    seed: int
    max_macs: int | None
    folder: Location
    min_macs: int | None = None

    def trial_folder(self, trial: Trial) -> Location:
        """Return the folder with a trial's state and result."""
        return self.folder / trial.name

    def result_file(self, trial: Trial) -> Location:
        """Return the file of a trial's result, which exists once the trial is finished."""
        return self.trial_folder(trial) / "result.json"

    def is_over(self, trial: Trial, say: Say, decode: Callable[[str], object] = lambda text: None) -> bool:
        """Return whether a trial has a result. An altered result is reported and removed, and does not count.

        Args:
            trial: The trial.
            say: Called with a message if a result is removed.
            decode: Raises a `GenotypeError` for text that is not an architecture of the trial's space.
        """
        return read_or_remove(self.result_file(trial), TrialResult, say, partial(_fault, trial, decode)) is not None

    def results(self) -> list[TrialResult]:
        """Return the results of all trials, which must be finished, in the order of `SearchConfig.trials`.

        Raises:
            StorageError: a result cannot be read.
        """
        return [self.result_file(trial).read_model(TrialResult) for trial in self.config.trials]


def _fault(trial: Trial, decode: Callable[[str], object], result: TrialResult) -> str:
    """Return why a result cannot belong to this trial; empty if it can."""
    expected = (trial.name, trial.algorithm.kind, trial.space.model_dump(mode="json"), trial.seed)
    if (result.trial, result.algorithm, result.space_config, result.seed) != expected:
        return f"it is the result of {result.trial} in another space, by another algorithm or with another seed"
    try:
        for text in {result.genotype, *result.finalists}:
            decode(text)
    except GenotypeError as error:
        return str(error).rstrip(".")
    return ""


def run_trial(
    trial: Trial,
    job: SearchJob,
    teacher: Teacher,
    images: SyntheticImages | ShardFolder,
    device: torch.device,
    board: Board,
    measure_with: Callable[[Scorer], MeasureCandidates] = lambda scorer: scorer,
    on_step: Callable[[HistoryEntry], None] = lambda entry: None,
) -> None:
    """Run a trial to the end, resuming from the state in its folder, and write the result there.

    Args:
        trial: The trial.
        job: What the trial shares with the others.
        teacher: The teacher, which labels the images.
        images: The finished set, or the folder of a set that is still being made.
        device: The device to compute on.
        board: Receives the progress.
        measure_with: See `SearchState.run`.
        on_step: Called with each new entry of the history.

    Raises:
        ShardsMissing: the trial cannot continue before more images are ready. Its state is kept.
    """
    folder = job.trial_folder(trial)
    source = images if isinstance(images, ShardFolder) else WholeSet(images)
    growing = GrowingSet(source, folder / "shards.json") if job.config.start_after_shards is not None else None
    state, batches = begin_trial(job, trial, teacher, source, growing, device)
    where = restore(state, folder)
    board.start(f"Search trial {trial.name}", where)
    if growing is not None:
        take_up(state, growing, batches)
    write, steps = board.writer(trial.name), trial.algorithm.steps_to_show

    def on_progress(state: SearchState) -> None:
        latest = state.history[-1]
        if growing is not None and latest["phase"] == "training":
            latest["images"] = len(batches.train.ids)
        save(state, folder)
        figure = f"loss {latest['loss']:.3f}" if latest["phase"] == "training" else f"best {latest['best']:.3f}"
        done = steps * len(state.history) / max(steps, state.algorithm.num_epochs)
        write(min(done, steps), f"{trial.name}: {latest['phase']} {latest['number']}, {figure}")
        on_step(latest)
        if growing is not None:
            take_up(state, growing, batches)

    state.run(on_progress, measure_with)
    write(steps, f"{trial.name}: finished")  # it may have stopped early
    genotype, score = state.algorithm.best()
    finalists = state.algorithm.finalists(job.config.selection.finalists)
    arrivals = growing.arrivals if growing is not None else None
    result = describe_trial(trial, state.algorithm.space, genotype, score, finalists, state.history, arrivals)
    result.write(job.result_file(trial))


def describe_trial(
    trial: Trial,
    space: SearchSpace,
    genotype: Genotype,
    own_score: float,
    finalists: Sequence[Genotype],
    history: Sequence[HistoryEntry],
    arrivals: Sequence[Sequence[int]] | None = None,
) -> TrialResult:
    """Return the result of a trial."""
    cost = space.cost(genotype)
    return TrialResult(
        trial=trial.name,
        algorithm=trial.algorithm.kind,
        space=trial.space.kind,
        space_config=trial.space.model_dump(mode="json"),
        seed=trial.seed,
        genotype=space.encode(genotype),
        macs=cost.macs,
        params=cost.params,
        own_score=own_score,
        finalists=tuple(space.encode(finalist) for finalist in finalists),
        history=tuple(HistoryPoint(**entry) for entry in history),
        arrivals=None if arrivals is None else tuple(tuple(new) for new in arrivals),
    )


def take_up(state: SearchState, growing: GrowingSet, batches: SplitBatches) -> None:
    """Load the images of the next epoch, or all images if candidates are compared next.

    Raises:
        ShardsMissing: the trial cannot continue yet.
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
    """Return a new, seeded search on a finished set of images."""
    return begin_trial(job, trial, teacher, WholeSet(images), None, device)[0]


def make_problem(
    job: SearchJob, trial: Trial, teacher: Teacher, images: SyntheticImages, device: torch.device
) -> SearchProblem:
    """Return the seeded inputs of a search on a finished set of images."""
    return _problem(job, trial, teacher, WholeSet(images), None, device)[0]


def begin_trial(
    job: SearchJob,
    trial: Trial,
    teacher: Teacher,
    source: ShardSource,
    growing: GrowingSet | None,
    device: torch.device,
) -> tuple[SearchState, SplitBatches]:
    """Return a new search and the batches that it learns from."""
    problem, batches = _problem(job, trial, teacher, source, growing, device)
    return SearchState(make_algorithm(trial.algorithm, problem)), batches


def _problem(
    job: SearchJob,
    trial: Trial,
    teacher: Teacher,
    source: ShardSource,
    growing: GrowingSet | None,
    device: torch.device,
) -> tuple[SearchProblem, SplitBatches]:
    config = job.config
    seed = derive_seed(job.seed, "search", trial.seed)
    seed_everything(seed)
    images = source.load(source.present()) if growing is None else growing.load(growing.of_epoch(0))
    batches = make_batches(job, teacher, images, source, trial.algorithm.batch_size, seed, device)
    space = trial.space.space(teacher.image_shape, teacher.num_classes)
    problem = SearchProblem(
        space,
        batches.train,
        batches.validation,
        config.distillation,
        job.max_macs,
        seed,
        config.precision,
        min_macs=job.min_macs,
    )
    return problem, batches


def make_batches(
    job: SearchJob,
    teacher: Teacher,
    images: SyntheticImages,
    source: ShardSource,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> SplitBatches:
    """Return training and validation batches of the present images; the split is the same for all trials."""
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
        config.precision,
    )


def save(state: SearchState, folder: Location) -> None:
    """Write a search's state into its folder."""
    (folder / "state.pt").write_bytes(_encoded(state))


def _encoded(state: SearchState) -> memoryview:
    buffer = BytesIO()
    torch.save(state.state_dict(), buffer)
    return buffer.getbuffer()


def restore(state: SearchState, folder: Location) -> str:
    """Restore the state of the last `save`, if there is one, and return a text that says where the search is.

    A state that cannot be read is reported and set aside; the search then starts from its beginning.

    Args:
        state: A search at its beginning.
        folder: The folder of the trial.
    """
    file = folder / "state.pt"
    if file.exists():
        beginning = _encoded(state)

        def load(data: bytes | memoryview) -> None:
            # The random number generator's state belongs on the CPU; weights and moments move to the model's device.
            state.load_state_dict(torch.load(BytesIO(data), map_location="cpu", weights_only=True))

        if not load_or_set_aside(file, load):
            load(beginning)
    return "after {phase} {number}".format(**state.history[-1]) if state.history else "from its beginning"
