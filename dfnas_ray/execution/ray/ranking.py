"""Given architectures ranked by search algorithms, their candidates measured by Ray tasks.

Every ranking has a folder of its own: the state of its training, and what was measured so far, written chunk by chunk.
What is there is not done again, whatever else is ranked beside it and however many architectures are added.

    FOLDER/state.pt, training.json      after every epoch
    FOLDER/measured-00000.json ...      a chunk of measurements each, by architecture
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import RayError

from dfnas_ray.algorithms.base import Measurement, Scorer, SearchState
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.multi_fidelity import MultiFidelityConfig
from dfnas_ray.errors import DfnasError
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.cluster import worker_device
from dfnas_ray.execution.ray.images import ImagesRef, load_images
from dfnas_ray.execution.ray.multi_fidelity import measure_population
from dfnas_ray.execution.ray.search_trials import (
    SearchJob,
    make_state,
    measure_here,
    restore,
    save,
)
from dfnas_ray.execution.ray.tune_runs import last_line
from dfnas_ray.ranking.sources import Canvases, SetSize, labelled, noise_canvases
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher


@dataclass(frozen=True, eq=False)
class Ranking:
    """One algorithm on one set of images, with one root seed.

    Attributes:
        name: As users read it.
        job: The settings of search with the ranking's root seed and folder.
        trial: The algorithm and the space.
    """

    name: str
    job: SearchJob
    trial: Trial


@dataclass
class Recorded:
    """What is recorded in a ranking's folder.

    Attributes:
        folder: The ranking's.
        measurements: By the text of the architecture.
        seconds: That workers spent on them.
        num_files: Chunks.
    """

    folder: Location
    measurements: dict[str, Measurement] = field(default_factory=dict)
    seconds: float = 0.0
    num_files: int = 0

    @classmethod
    def read(cls, ranking: Ranking) -> Recorded:
        """Read everything that is there."""
        recorded = cls(ranking.job.folder)
        for name in recorded.folder.file_names():
            if name.startswith("measured-"):
                recorded._take((recorded.folder / name).read_json())
        return recorded

    def add(self, texts: Sequence[str], measurements: Sequence[Measurement], seconds: float) -> None:
        """Write one chunk."""
        chunk = {"seconds": round(seconds, 3), "measurements": dict(zip(texts, measurements, strict=True))}
        (self.folder / f"measured-{self.num_files:05d}.json").write_json(chunk)
        self._take(chunk)

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Return those that were not measured yet."""
        return [text for text in texts if text not in self.measurements]

    @property
    def training_seconds(self) -> float:
        """What was spent before the first candidate could be measured."""
        file = self.folder / "training.json"
        return file.read_json()["seconds"] if file.exists() else 0.0

    def _take(self, chunk: dict[str, Any]) -> None:
        self.measurements.update(chunk["measurements"])
        self.seconds += chunk["seconds"]
        self.num_files += 1


class Scores(NamedTuple):
    """One score per architecture, higher is better, and the seconds of work that each one took."""

    scores: list[float]
    seconds: float


def share(teacher: Teacher) -> ray.ObjectRef[Teacher]:
    """Put the teacher into the object store, once for all rankings."""
    return ray.put(teacher)


def synthetic_set(folder: Location) -> ImagesRef:
    """Return the synthetic images of a folder."""
    return load_images.remote(folder, (folder / "manifest.json").read_json())


def noise_set(teacher: ray.ObjectRef[Teacher], size: SetSize, seed: int) -> ImagesRef:
    """Return noise that the teacher has labelled."""
    return _label_noise.remote(teacher, size, seed)


def labelled_set(teacher: ray.ObjectRef[Teacher], canvases: Canvases, size: SetSize) -> ImagesRef:
    """Return these images, labelled by the teacher."""
    return _label.remote(teacher, ray.put(canvases), size)


@ray.remote
def _label_noise(teacher: Teacher, size: SetSize, seed: int) -> SyntheticImages:
    worker_device(1)
    return labelled(teacher, noise_canvases(teacher, size, seed), size)


@ray.remote
def _label(teacher: Teacher, canvases: Canvases, size: SetSize) -> SyntheticImages:
    worker_device(1)
    return labelled(teacher, canvases, size)


def measure_all(
    rankings: Mapping[Ranking, Recorded],
    architectures: Mapping[str, Genotype],
    chunk_size: int,
    num_workers: int,
    teacher: ray.ObjectRef[Teacher],
    images_of: Callable[[Ranking], ImagesRef],
    board: ProgressBoard,
) -> None:
    """Measure what is missing, for every ranking.

    Args:
        rankings: With what is recorded of each.
        architectures: By their texts.
        chunk_size: Architectures of one task.
        num_workers: For how many at once the cluster has room.
        teacher: In the object store.
        images_of: Returns the images of a ranking; called when it starts.
        board: Told how many architectures were measured, and who trains.

    Raises:
        DfnasError: a ranking failed; what was measured is kept.
    """
    queue = _Queue(rankings, architectures, chunk_size, teacher, images_of, board)
    try:
        queue.run(in_flight=2 * num_workers)  # a worker that finishes finds its next task waiting
    finally:
        for task in [*queue.preparing, *queue.measuring]:
            ray.cancel(task)


class _Queue:
    """Rankings that wait, those whose scorers are being prepared, and chunks of candidates."""

    def __init__(
        self,
        rankings: Mapping[Ranking, Recorded],
        architectures: Mapping[str, Genotype],
        chunk_size: int,
        teacher: ray.ObjectRef[Teacher],
        images_of: Callable[[Ranking], ImagesRef],
        board: ProgressBoard,
    ):
        self.architectures, self.chunk_size = architectures, chunk_size
        self.teacher, self.images_of, self.board = teacher, images_of, board
        self.recorded = rankings
        self.missing = {ranking: recorded.missing(architectures) for ranking, recorded in rankings.items()}
        # Populations last: each is a Tune experiment, during which nothing else is recorded.
        waiting = [ranking for ranking, texts in self.missing.items() if texts]
        self.waiting = deque(sorted(waiting, key=_is_population))
        self.chunks: deque[tuple[Ranking, ray.ObjectRef[Scorer], list[str]]] = deque()
        self.preparing: dict[ray.ObjectRef[None], tuple[Ranking, ray.ObjectRef[Scorer]]] = {}
        self.measuring: dict[ray.ObjectRef[Any], tuple[Ranking, list[str]]] = {}
        self.num_measured = 0
        self.write = board.writer("measured")

    def run(self, in_flight: int) -> None:
        """Return when nothing is missing."""
        while self.waiting or self.chunks or self.preparing or self.measuring:
            while (self.chunks or self.waiting) and len(self.preparing) + len(self.measuring) < in_flight:
                if not self.chunks and _is_population(self.waiting[0]) and (self.preparing or self.measuring):
                    break
                self.submit()
            if not (self.preparing or self.measuring):
                continue  # the last one was a population
            (task,), _ = ray.wait([*self.preparing, *self.measuring], num_returns=1)
            if task in self.preparing:
                ranking, scorer = self.preparing.pop(task)
                _get(task, ranking)
                texts = self.missing[ranking]
                starts = range(0, len(texts), self.chunk_size)
                self.chunks += [(ranking, scorer, texts[start : start + self.chunk_size]) for start in starts]
            else:
                ranking, texts = self.measuring.pop(task)
                measurements, seconds = _get(task, ranking)
                self.record(ranking, texts, measurements, seconds)

    def submit(self) -> None:
        """Measure a chunk; if there is none, start another ranking."""
        if self.chunks:
            ranking, scorer, texts = self.chunks.popleft()
            # A list keeps Ray from unpacking the scorer for every task: a worker keeps the one that it has.
            task = _measure.options(**_options(ranking)).remote(ranking, [scorer], self.genotypes(texts))
            self.measuring[task] = (ranking, texts)
            return
        ranking = self.waiting.popleft()
        images = self.images_of(ranking)
        if _is_population(ranking):
            texts, started = self.missing[ranking], time.monotonic()
            trial = ranking.trial._replace(name="population")
            measurements = measure_population(
                ranking.job, trial, self.genotypes(texts), ray.get(self.teacher), images, self.board
            )
            self.record(ranking, texts, measurements, time.monotonic() - started)
            return
        scorer, prepared = _prepare.options(**_options(ranking)).remote(ranking, self.teacher, images, self.board)
        self.preparing[prepared] = (ranking, scorer)

    def genotypes(self, texts: list[str]) -> list[Genotype]:
        return [self.architectures[text] for text in texts]

    def record(self, ranking: Ranking, texts: list[str], measurements: list[Measurement], seconds: float) -> None:
        """Keep what was measured, and tell it."""
        self.recorded[ranking].add(texts, measurements, seconds)
        self.num_measured += len(texts)
        self.write(self.num_measured, ranking.name)


def _is_population(ranking: Ranking) -> bool:
    return ranking.trial.algorithm.measures_population


def scores_of(
    rankings: Mapping[Ranking, Recorded],
    architectures: Sequence[str],
    teacher: ray.ObjectRef[Teacher],
    images_of: Callable[[Ranking], ImagesRef],
) -> list[Scores]:
    """Let each algorithm rank what was measured of the architectures."""
    tasks = [
        _rank.options(**_options(ranking)).remote(
            ranking, teacher, images_of(ranking), [recorded.measurements[text] for text in architectures]
        )
        for ranking, recorded in rankings.items()
    ]
    # More may have been measured for another sample of architectures: the time of training is shared by all.
    return [
        Scores(_get(task, ranking), (recorded.training_seconds + recorded.seconds) / len(recorded.measurements))
        for task, (ranking, recorded) in zip(tasks, rankings.items(), strict=True)
    ]


@ray.remote(num_returns=2)
def _prepare(ranking: Ranking, teacher: Teacher, images: SyntheticImages, board: ProgressBoard) -> tuple[Scorer, None]:
    """Train what has to be trained, from its last epoch on, and return what then measures candidates."""
    state, where = _restored(ranking, teacher, images)
    if state.algorithm.is_training:
        board.start(f"Training {ranking.name}", where)
    folder, write = ranking.job.folder, board.writer("training")
    file, before, started = folder / "training.json", Recorded(folder).training_seconds, time.monotonic()

    def on_progress(state: SearchState) -> None:
        file.write_json({"seconds": round(before + time.monotonic() - started, 3)})
        save(state, folder)
        algorithm = state.algorithm
        write(0, f"training {ranking.name}: epoch {algorithm.epochs_done} of {algorithm.num_epochs}")

    state.train(on_progress)
    scorer = state.algorithm.scorer()
    scorer.to(torch.device("cpu"))
    return scorer, None


@ray.remote
def _measure(
    ranking: Ranking, scorer: list[ray.ObjectRef[Scorer]], genotypes: list[Genotype]
) -> tuple[list[Measurement], float]:
    started = time.monotonic()
    measurements = measure_here(scorer[0], genotypes, ranking.job.resources.cpus)
    return measurements, time.monotonic() - started


@ray.remote
def _rank(ranking: Ranking, teacher: Teacher, images: SyntheticImages, measurements: list[Measurement]) -> list[float]:
    if isinstance(ranking.trial.algorithm, MultiFidelityConfig):
        return ranking.trial.algorithm.rank(measurements)
    return _restored(ranking, teacher, images)[0].algorithm.rank(measurements)


def _restored(ranking: Ranking, teacher: Teacher, images: SyntheticImages) -> tuple[SearchState, str]:
    """Return the algorithm as far as it is trained, and say how far that is."""
    device = worker_device(ranking.job.resources.cpus)
    state = make_state(ranking.job, ranking.trial, teacher, images, device)
    return state, restore(state, ranking.job.folder)


def _options(ranking: Ranking) -> dict[str, Any]:
    """Return what a task of a ranking holds, and how often it is tried."""
    resources = ranking.job.resources
    strategy = "SPREAD" if resources.placement in ("SPREAD", "STRICT_SPREAD") else "DEFAULT"
    return {**resources.options(), "max_retries": resources.attempts - 1, "scheduling_strategy": strategy}


def _get(task: ray.ObjectRef[Any], ranking: Ranking) -> Any:
    try:
        return ray.get(task)
    except RayError as error:
        cause = getattr(error, "cause", None)
        reason = str(cause) if isinstance(cause, DfnasError) else last_line(error)
        raise DfnasError(
            f"The ranking by {ranking.name} failed: {reason} What was measured is kept in {ranking.job.folder}; run the "
            "same command again to go on from there."
        ) from error
