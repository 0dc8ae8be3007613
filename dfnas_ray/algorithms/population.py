"""The files of the candidates of a multi-fidelity search, and the training of one candidate at a time.

The trial's folder holds each candidate's results, and its network after every epoch. A candidate that is started again,
in any process, resumes from its last epoch.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from io import BytesIO

import torch
from pydantic import BaseModel, ConfigDict

from dfnas_ray.algorithms.config import Trial
from dfnas_ray.algorithms.multi_fidelity import Candidate, MultiFidelityConfig, Population
from dfnas_ray.algorithms.stand_alone import CandidateTraining
from dfnas_ray.algorithms.trials import SearchJob, TrialResult, describe_trial, make_batches
from dfnas_ray.errors import GenotypeError, StorageError
from dfnas_ray.progress import Board
from dfnas_ray.search_spaces.base import Genotype, SearchSpace
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.altered import load_or_set_aside, read_or_remove
from dfnas_ray.storage.arrivals import WholeSet
from dfnas_ray.storage.location import Count, Location
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import Teacher

logger = logging.getLogger(__name__)


def space_of(trial: Trial, teacher: Teacher) -> SearchSpace:
    """Return the search space of a trial for the teacher's image shape and number of classes."""
    space: SearchSpace = trial.space.space(teacher.image_shape, teacher.num_classes)
    return space


def seed_of(job: SearchJob, trial: Trial) -> int:
    """Return the seed of a trial's draws."""
    return derive_seed(job.seed, "search", trial.seed)


def config_of(trial: Trial) -> MultiFidelityConfig:
    """Return the settings of a multi-fidelity trial."""
    assert isinstance(trial.algorithm, MultiFidelityConfig)
    return trial.algorithm


def describe_population(job: SearchJob, trial: Trial, space: SearchSpace, population: Population) -> TrialResult:
    """Return the result of a search: its best candidate and the runners-up."""
    best, score = population.best()
    finalists = [space.decode(one.genotype) for one in population.ranked()[: job.config.selection.finalists]]
    return describe_trial(trial, space, space.decode(best.genotype), score, finalists, population.history())


class RecordedRung(BaseModel):
    """A `RungResult` as it is written to a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Count
    loss: float
    agreement: float


class RecordedCandidate(BaseModel):
    """A `Candidate` as it is written to a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Count
    genotype: str
    results: list[RecordedRung] = []
    is_stopped: bool = False

    def candidate(self) -> Candidate:
        """Return the candidate."""
        return Candidate(**self.model_dump())


class CandidateFiles:
    """The files of a population's candidates, by number."""

    def __init__(self, folder: Location, config: MultiFidelityConfig, space: SearchSpace):
        self.folder, self.config, self.space = folder, config, space

    def results(self, number: int) -> Location:
        """Return the file of a candidate's results."""
        return self.folder / f"candidate-{number:05d}.json"

    def state(self, number: int) -> Location:
        """Return the file of the network of a candidate in training."""
        return self.folder / f"candidate-{number:05d}.pt"

    def candidates(self) -> list[Candidate]:
        """Return all started candidates. An altered file is reported and removed, and its candidate starts again."""
        names = [re.fullmatch(r"candidate-(\d{5,})\.json", name) for name in self.folder.file_names()]
        found = [self.read(int(name[1])) for name in names if name is not None]
        return [each for each in found if each is not None]

    def read(self, number: int) -> Candidate | None:
        """Return a candidate if it was started. An altered file is reported and removed; the candidate starts again."""
        found = read_or_remove(self.results(number), RecordedCandidate, fault=partial(self._fault, number))
        return None if found is None else found.candidate()

    def _fault(self, number: int, found: RecordedCandidate) -> str:
        """Return why a file cannot be this candidate's."""
        if found.number != number:
            return f"it says that it is candidate {found.number}"
        reached = tuple(result.epochs for result in found.results)
        if reached != self.config.rungs[: len(reached)]:
            return f"it has results after {list(reached)} epochs, and candidates are compared after {list(self.config.rungs)}"
        try:
            self.space.decode(found.genotype)
        except GenotypeError as error:
            return str(error).rstrip(".")
        return ""

    def write(self, candidate: Candidate) -> None:
        """Write a candidate's results."""
        self.results(candidate.number).write_json(asdict(candidate))

    def close(self, candidate: Candidate, is_stopped: bool) -> None:
        """Record that a candidate is finished, and delete the file of its network."""
        if is_stopped:
            candidate.is_stopped = True
            self.write(candidate)
        self.state(candidate.number).delete_file()

    def waiting(self, given: Sequence[Genotype], space: SearchSpace, population: Population) -> list[tuple[int, str]]:
        """Return the numbers and genotypes of those given candidates that are not finished.

        Raises:
            StorageError: a number belongs to another architecture in this folder.
        """
        known = {candidate.number: candidate for candidate in population.candidates}
        waiting = []
        for number, genotype in enumerate(given):
            text = space.encode(genotype)
            candidate = known.get(number)
            if candidate is not None and candidate.genotype != text:
                raise StorageError(
                    f"{self.results(number)} holds {candidate.genotype}, where {text} should be. Delete "
                    f"{self.folder} and run again."
                )
            if candidate is None or population.config.is_open(candidate):
                waiting.append((number, text))
        return waiting


class CandidateWorker:
    """Trains candidates one after the other in one process, from rung to rung.

    Attributes:
        candidate: The current candidate.
    """

    def __init__(
        self,
        job: SearchJob,
        trial: Trial,
        teacher: Teacher,
        images: SyntheticImages,
        device: torch.device,
        board: Board,
    ):
        self.job, self.trial, self.device, self.board = job, trial, device, board
        self.settings = config_of(trial)
        self.space = space_of(trial, teacher)
        self.files = CandidateFiles(job.trial_folder(trial), self.settings, self.space)
        self.seed = seed_of(job, trial)
        whole = WholeSet(images)
        self.batches = make_batches(job, teacher, images, whole, self.settings.batch_size, self.seed, device)
        self.candidate: Candidate

    def take_up(self, number: int, text: str) -> None:
        """Start a candidate, or resume one that was interrupted."""
        found = self.files.read(number)
        if found is not None and found.genotype != text:  # written by another command that ran at the same time
            logger.warning("Candidate %d of %s has another architecture now; it starts again.", number, self.trial.name)
            found = None
        if found is None:
            self.files.state(number).delete_file()  # it belongs to another candidate, or to altered results
        self.candidate = found or Candidate(number, text)
        state = self.files.state(number)
        self.training = self._begin(text)
        if state.exists() and not load_or_set_aside(state, self._load):
            self.candidate, self.training = Candidate(number, text), self._begin(text)
        if not state.exists():
            self.files.write(self.candidate)  # so that a restart knows of every proposed candidate
        self.board.start(f"Candidate {number} of {self.trial.name}", f"after epoch {self.training.epochs_done}")

    def _load(self, data: bytes) -> None:
        loaded = torch.load(BytesIO(data), map_location=self.device, weights_only=True)
        self.training.load_state_dict(loaded)

    def _begin(self, text: str) -> CandidateTraining:
        return CandidateTraining(
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

    def advance(self) -> None:
        """Train the candidate to its next rung, if there is one."""
        candidate, config = self.candidate, self.settings
        if config.is_open(candidate):
            epochs = next(rung for rung in config.rungs if rung > candidate.epochs)
            candidate.add(epochs, self.training.train_to(epochs, self._keep))
            self.files.write(candidate)

    def _keep(self) -> None:
        buffer = BytesIO()
        torch.save(self.training.state_dict(), buffer)
        self.files.state(self.candidate.number).write_bytes(buffer.getbuffer())
