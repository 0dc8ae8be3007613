"""Rankings of given architectures, spread over workers: first training, then measurement, then the order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from dfnas_ray.algorithms.base import BaseAlgorithmConfig, Measurement, Scorer
from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.population import config_of
from dfnas_ray.algorithms.trials import SearchJob
from dfnas_ray.execution.base import Work
from dfnas_ray.progress import Board
from dfnas_ray.ranking.recorded import Ranking, Recorded
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.storage.location import JsonObject, Location
from dfnas_ray.storage.run_dir import StageDir, fingerprint
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.storage.shared import Shared
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.workflow.images import ImagesStage, synthetic_size
from dfnas_ray.workflow.session import Session

_TRIAL_SEED = 0  # with the experiment's root seed, an algorithm trains as in the first trial of the search


def measuring_inputs(session: Session) -> JsonObject:
    """Return the inputs on which all measurements of an experiment depend."""
    config, size = session.config, synthetic_size(session)
    return {
        "teacher": session.teacher.fingerprint,
        "images": {"number": size.images, "canvas": size.canvas},
        "space": config.search.space[0].model_dump(mode="json"),
        "max_macs": session.max_macs,
        **({} if session.min_macs is None else {"min_macs": session.min_macs}),
        "search": config.search.model_dump(mode="json", include={"validation_fraction", "distillation", "precision"}),
        "threads": config.cluster.search.cpus,
    }


def ranking_folder(
    session: Session,
    algorithm: BaseAlgorithmConfig,
    source: tuple[str, ImagesStage] | None,
    architectures: Sequence[Genotype],
) -> StageDir:
    """Return the folder for the measurements of one algorithm on one set of images.

    They depend neither on the table nor on each other, so another benchmark can use them again.

    Args:
        session: A session with the ranking's settings and root seed.
        algorithm: The settings of the algorithm.
        source: The name and the source of the images; None if images do not matter.
        architectures: The architectures that are ranked.
    """
    inputs = {
        **measuring_inputs(session),
        "seed": session.config.seed,
        "source": source and source[0],
        "algorithm": algorithm.measuring_settings(),
        **({"upstream": {source[1].name: source[1].key}} if source is not None else {}),
        **({"population": fingerprint(architectures)} if algorithm.measures_population else {}),
    }
    return session.run_dir.stage("ranking", inputs | session.own_code("search"))


class Chunk(NamedTuple):
    """Architectures that are measured together, and recorded together."""

    ranking: str
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return f"of {len(self.texts)} architectures for {self.ranking}, the first of them {self.texts[0]},"


class Measured(NamedTuple):
    """The measurements of a chunk, and the seconds that they took."""

    measurements: list[Measurement]
    seconds: float


class Scores(NamedTuple):
    """One score per architecture, where higher is better, and the seconds of work per architecture."""

    scores: list[float]
    seconds: float


@dataclass(frozen=True)
class _Rankings:
    """The data for work on rankings.

    Attributes:
        rankings: All rankings by name. The names are the items of work.
        images: The images of each ranking.
    """

    rankings: Mapping[str, Ranking]
    images: Mapping[str, Shared[SyntheticImages]]
    teacher: Shared[Teacher]


@dataclass(frozen=True)
class TrainRanking(_Rankings):
    """Training of algorithms that must be trained before they measure candidates, one ranking at a time."""

    board: Board

    def __call__(self, device: torch.device) -> Callable[[str], bool]:
        """Return the function that trains a ranking from its last epoch on."""
        write = self.board.writer("training")

        def train(name: str) -> bool:
            ranking = self.rankings[name]
            state, where = ranking.restored(self.teacher.get(), self.images[name].get(), device)
            if state.algorithm.is_training:
                self.board.start(f"Training {ranking.name}", where)
                ranking.train(state, lambda note: write(0, note))
            return True

        return train


@dataclass(frozen=True)
class MeasureChunk(_Rankings):
    """Measurement of candidates, a chunk at a time."""

    architectures: Mapping[str, Genotype]

    def __call__(self, device: torch.device) -> Callable[[Chunk], Measured]:
        """Return the function that measures a chunk. It keeps the scorer of the last ranking."""
        scorers: dict[str, Scorer] = {}

        def measure(chunk: Chunk) -> Measured:
            if chunk.ranking not in scorers:
                scorers.clear()
                images = self.images[chunk.ranking].get()
                state, _ = self.rankings[chunk.ranking].restored(self.teacher.get(), images, device)
                scorers[chunk.ranking] = state.algorithm.scorer()
            started = time.monotonic()
            measurements = scorers[chunk.ranking]([self.architectures[text] for text in chunk.texts])
            return Measured(measurements, time.monotonic() - started)

        return measure


@dataclass(frozen=True)
class OrderMeasured(_Rankings):
    """The scores that follow from measurements, one ranking at a time."""

    measurements: Mapping[str, Sequence[Measurement]]

    def __call__(self, device: torch.device) -> Callable[[str], list[float]]:
        """Return the function that returns one score per architecture."""

        def order(name: str) -> list[float]:
            if self.rankings[name].trial.algorithm.measures_population:
                return config_of(self.rankings[name].trial).rank(self.measurements[name])
            state, _ = self.rankings[name].restored(self.teacher.get(), self.images[name].get(), device)
            return state.algorithm.rank(self.measurements[name])

        return order


class Rankings:
    """Rankings of the same architectures. Recorded measurements are used, and missing ones are made.

    A measurement that several rankings share is made once, such as a figure of untrained networks that does not depend
    on the images.

    Args:
        stage: The name of the stage that they belong to.
        session: The session of the command.
        architectures: The architectures that are ranked.
    """

    def __init__(self, stage: str, session: Session, architectures: Sequence[Genotype]):
        self.stage, self.session, self._given = stage, session, architectures
        space = session.spaces[0]
        self.architectures = {space.encode(genotype): genotype for genotype in architectures}
        self._wholes: dict[str, tuple[Ranking, list[Recorded]]] = {}
        self._parts: dict[str, tuple[Ranking, Recorded]] = {}  # by folder
        self._images: dict[str, Callable[[], Shared[SyntheticImages]]] = {}
        self._measured = 0  # by this command

    def add(
        self,
        name: str,
        algorithm: BaseAlgorithmConfig,
        session: Session,
        source: tuple[str, ImagesStage] | None,
        images: Callable[[], Shared[SyntheticImages]],
    ) -> None:
        """Add a ranking.

        Args:
            name: The name for users.
            algorithm: The settings of the algorithm.
            session: A session with the ranking's settings and root seed.
            source: The name and the source of the images; None if images do not matter.
            images: Returns the images.
        """
        recorded, rankings = [], []
        for part in algorithm.parts:
            looked_at = source if part.needs_images else None
            folder = ranking_folder(session, part, looked_at, self._given)
            if str(folder.location) not in self._parts:
                folder.begin()
                own = name if len(algorithm.parts) == 1 else f"{name}: {part.label}"
                ranking = _ranking(session, own, part, folder.location)
                self._parts[str(folder.location)] = (ranking, Recorded.read(ranking, self.session.listener.say))
                self._images[own] = images
            ranking, known = self._parts[str(folder.location)]
            recorded.append(known)
            rankings.append(ranking)
        # A ranking of its own, even if it shares a part: two may measure the same and order by other criteria.
        self._images[name] = images
        self._wholes[name] = (_ranking(session, name, algorithm, rankings[0].job.folder), recorded)

    def measure(self, what: str, chunk_size: int) -> None:
        """Measure what is missing.

        Args:
            what: The name of the bar.
            chunk_size: The number of architectures in one item of work.

        Raises:
            DfnasError: a ranking failed; what was measured is kept.
        """
        session, parts = self.session, dict(self._parts.values())
        missing = sum(len(recorded.missing(self.architectures)) for recorded in parts.values())
        total = len(parts) * len(self.architectures)
        if 0 < missing < total:
            session.listener.say(f"{self.stage}: {total - missing:,} of {total:,} measurements are there already.")
        if missing:
            executor = session.executor
            with session.listener.task(what, missing, "measurement") as task, executor.show(task) as board:
                for rankings in self._at_a_time(parts):
                    self._measure_missing({one: parts[one] for one in rankings}, chunk_size, board)

    def _at_a_time(self, rankings: Iterable[Ranking]) -> Iterator[list[Ranking]]:
        """Yield the rankings whose images are held at the same time: those of one seed if there is one worker, or all."""
        if self.session.executor.room_for(self.session.config.cluster.search) > 1:
            yield list(rankings)
        else:
            by_seed: dict[int, list[Ranking]] = {}
            for one in rankings:
                by_seed.setdefault(one.job.seed, []).append(one)
            for some in by_seed.values():
                yield some
                self.session.forget_images()

    def _measure_missing(self, parts: Mapping[Ranking, Recorded], chunk_size: int, board: Board) -> None:
        """Train what must be trained first, then measure chunks, then populations."""
        executor, teacher, architectures = self.session.executor, self.session.shared_teacher, self.architectures
        named = {ranking.name: ranking for ranking in parts}
        missing = {ranking.name: recorded.missing(architectures) for ranking, recorded in parts.items()}
        missing = {name: texts for name, texts in missing.items() if texts}
        populations = [name for name in missing if named[name].trial.algorithm.measures_population]
        alone = [name for name in missing if name not in populations]
        images = {name: self._images_of(name) for name in missing}
        write = board.writer("measured")

        def record(name: str, texts: Sequence[str], measurements: list[Measurement], seconds: float) -> None:
            parts[named[name]].add(texts, measurements, seconds)
            self._measured += len(texts)
            write(self._measured, name)

        trained = [name for name in alone if named[name].trial.algorithm.trains_by_epochs]
        training = TrainRanking(named, images, teacher, board)
        executor.map_all(Work("search", "training of ranking", training), trained, lambda name, _: None)
        chunks = [
            Chunk(name, tuple(missing[name][start : start + chunk_size]))
            for name in alone
            for start in range(0, len(missing[name]), chunk_size)
        ]
        executor.map_all(
            Work("search", "chunk", MeasureChunk(named, images, teacher, architectures)),
            chunks,
            lambda chunk, done: record(chunk.ranking, chunk.texts, done.measurements, done.seconds),
        )
        for name in populations:
            ranking, started = named[name], time.monotonic()
            measurements = executor.measure_population(
                ranking.job,
                ranking.trial._replace(name="population"),
                [architectures[text] for text in missing[name]],
                teacher,
                images[name],
                board,
            )
            record(name, missing[name], measurements, time.monotonic() - started)

    def scores(self) -> dict[str, Scores]:
        """Return the scores that each algorithm gives from its measurements, by ranking."""
        executor = self.session.executor
        measurements = {
            ranking.name: [_merged(recorded, text) for text in self.architectures]
            for ranking, recorded in self._wholes.values()
        }
        scores: dict[str, list[float]] = {}
        for rankings in self._at_a_time(ranking for ranking, _ in self._wholes.values()):
            named = {ranking.name: ranking for ranking in rankings}
            images = {name: self._images_of(name) for name in named}
            order = OrderMeasured(named, images, self.session.shared_teacher, measurements)
            executor.map_all(Work("search", "order of ranking", order), list(named), scores.__setitem__)
        return {
            name: Scores(scores[ranking.name], sum(one.seconds_per_architecture for one in recorded))
            for name, (ranking, recorded) in self._wholes.items()
        }

    def _images_of(self, name: str) -> Shared[SyntheticImages]:
        return self._images[name]()


def _ranking(session: Session, name: str, algorithm: BaseAlgorithmConfig, folder: Location) -> Ranking:
    config = session.config
    limits = {"max_macs": session.max_macs, "min_macs": session.min_macs}
    job = SearchJob(config.search, config.cluster.search, config.seed, folder=folder, **limits)
    return Ranking(name, job, Trial(name, algorithm, config.search.space[0], _TRIAL_SEED))


def _merged(recorded: Sequence[Recorded], text: str) -> Measurement:
    """Return all recorded measurements of an architecture."""
    return {name: value for one in recorded for name, value in one.measurements[text].items()}
