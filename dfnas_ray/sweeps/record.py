"""The record of a sweep: an Optuna study on disk with all proposed trials, their figures and how they ended.

The study is a SQLite file beside the trials' images, and `optuna-dashboard` can open it. A trial is stored with its
number and its settings before it starts. If a killed command leaves a trial running, the trial goes back to the queue
under the same number. So nothing is lost, nothing is done twice, and nothing is unpickled.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from dfnas_ray.errors import StorageError
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.altered import Say, set_aside
from dfnas_ray.storage.location import Location
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.sweeps.result import SweptTrial
from dfnas_ray.sweeps.samplers import make_sampler, propose
from dfnas_ray.sweeps.study import name_objectives
from dfnas_ray.sweeps.study_file import STUDY, fault_of, open_storage, sqlite_reason

logger = logging.getLogger(__name__)

_FILE = "study.db"
_FIRST_TRIALS = "first_trials"


def trial_folder(sweep: Location, number: int) -> Location:
    """Return the folder with the shards and the result of one trial of a sweep."""
    return sweep / f"trial-{number:05d}"


class SweepRecord:
    """The record of one sweep's trials.

    Attributes:
        config: The settings of the sweep.
        folder: The folder of the sweep.
        storage: Optuna's storage. If the folder is not on a local disk, it uses a local copy, which `keep` writes back.
    """

    def __init__(self, config: SweepConfig, folder: Location, storage: RDBStorage, copy: Path | None):
        self.config, self.folder, self.storage, self._copy = config, folder, storage, copy
        self.study_id = storage.get_study_id_from_name(STUDY)

    @classmethod
    @contextmanager
    def opened(cls, config: SweepConfig, folder: Location, say: Say = logger.warning) -> Iterator[Self]:
        """Open the record in a sweep's folder, or create it.

        A damaged study is reported and set aside, and a new one is created. Trials whose settings are proposed again
        reuse their images.

        Args:
            config: The settings of the sweep.
            folder: The folder of the sweep.
            say: Called with a message if a study is set aside.

        Raises:
            StorageError: the storage fails, for example because the disk is full.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = folder / _FILE
        with tempfile.TemporaryDirectory(prefix="dfnas-study-") as scratch:
            path = Path(file.path) if file.is_local else Path(scratch) / _FILE
            if not file.is_local and file.exists():
                path.write_bytes(file.read_bytes())
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path) and (fault := fault_of(path, config)):
                set_aside(file, f"The sweep's study {file} {fault}.", say)
                path.unlink(missing_ok=True)  # if the path is a copy, only its original was moved
            storage = open_storage(path)
            try:
                study = optuna.create_study(
                    storage=storage, study_name=STUDY, directions=config.directions, load_if_exists=True
                )
                name_objectives(study, config)
                if _FIRST_TRIALS not in study.user_attrs:
                    study.set_user_attr(_FIRST_TRIALS, config.num_trials)
                record = cls(config, folder, storage, None if file.is_local else path)
                try:
                    yield record
                finally:
                    record.keep()
            except (SQLAlchemyError, StorageInternalError) as error:
                raise StorageError(
                    f"The sweep's study {file} cannot be read or written: {sqlite_reason(error)}. What is finished is kept. Fix "
                    "the cause, and run the same command again."
                ) from error
            finally:
                storage.remove_session()

    @property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        return optuna.load_study(study_name=STUDY, storage=self.storage)

    @property
    def first_trials(self) -> int:
        """The number of trials when the sweep was started; samplers use it even if more trials are added later."""
        return int(self.storage.get_study_user_attrs(self.study_id)[_FIRST_TRIALS])

    def keep(self) -> None:
        """Write the local copy of the study, if there is one, to the sweep's folder."""
        if self._copy is not None:
            (self.folder / _FILE).write_bytes(self._copy.read_bytes())

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, or all, in the order of their numbers."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False, states=states or None)

    def trial(self, number: int) -> FrozenTrial:
        """Return one trial."""
        return self.storage.get_trial(self._id(number))

    def next_number(self) -> int:
        """Return the number of the next trial from Optuna: the first in the queue, or a new one."""
        waiting = self.trials(TrialState.WAITING)
        return waiting[0].number if waiting else self.storage.get_n_trials(self.study_id)

    def ask(self, seed: int) -> FrozenTrial:
        """Start the next trial with the settings that the sampler proposes, and return it.

        After an interruption, the proposals are the same as without it.

        Args:
            seed: The root seed.
        """
        study = self.study
        study.sampler = make_sampler(self.config, self.first_trials, derive_seed(seed, "sweep", self.next_number()))
        trial = study.ask()
        propose(self.config, trial)
        return self.trial(trial.number)

    def prune(self, number: int) -> None:
        """Record that a trial was stopped at a rung."""
        self.end(number, TrialState.PRUNED)

    def num_open(self) -> int:
        """Return the number of trials that must still be started or resumed."""
        finished = self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return max(0, self.config.num_trials - len(finished))

    def remember(self, number: int, rounds: int, figures: Mapping[str, Any]) -> None:
        """Store the figures of a trial after a number of rounds; a resumed trial may report the same figures again."""
        trial_id = self._id(number)
        for name in dict.fromkeys([*OBJECTIVES.built_in, *self.config.objectives]):
            if name in figures:
                self.storage.set_trial_user_attr(trial_id, name, figures[name])
        self.storage.set_trial_user_attr(trial_id, "rounds", rounds)
        (objective, *others) = self.config.objectives
        if objective in figures and not others:  # Optuna keeps intermediate values of a single objective
            self.storage.set_trial_intermediate_value(trial_id, rounds, float(figures[objective]))

    def observe(self, result: Mapping[str, Any]) -> None:
        """Store what a trial reports at a rung or at its end."""
        if "rounds" not in result:  # it failed
            return
        pruning, rounds = self.config.pruning, result["rounds"]
        # A restarted trial finds whole shards at once, and may report between two rungs.
        if result["finished"] or (pruning is not None and pruning.has_rung(rounds - 1, rounds)):
            self.remember(result["number"], rounds, result)

    def tell(self, result: Mapping[str, Any]) -> bool:
        """Store what a trial reports, and return whether the trial is finished."""
        self.observe(result)
        number: int = result["number"]
        if result.get("failed"):
            self.end(number, TrialState.FAIL)
        elif result["finished"]:
            self.end(number, TrialState.COMPLETE, [result[name] for name in self.config.objectives])
        else:
            return False
        return True

    def end(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Record how a trial ended."""
        self.storage.set_trial_state_values(self._id(number), state, values)

    def recover(self, say: Say = logger.warning) -> None:
        """Settle the trials that an interrupted command left running.

        A trial with a result is recorded as ended. A trial without a result, or with an altered one, goes back to the
        queue under its own number.

        Args:
            say: Called with a message about each altered result.
        """
        for trial in self.trials(TrialState.RUNNING):
            result = SweptTrial.read(trial_folder(self.folder, trial.number), trial.number, say)
            if result is None:
                self.end(trial.number, TrialState.WAITING)
                continue
            figures = result.figures
            values = [figures.get(name, math.nan) for name in self.config.objectives]
            if result.rounds is None or not all(
                map(math.isfinite, values)
            ):  # it failed; Optuna could not read a study with NaN again
                self.end(trial.number, TrialState.FAIL)
                continue
            self.remember(trial.number, result.rounds, figures)
            self.end(trial.number, TrialState.COMPLETE, values)
        if self.config.sampler.is_exhaustive:
            self._enqueue_grid()

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)

    def _enqueue_grid(self) -> None:
        """Put every point of the grid that the study does not contain yet into its queue."""
        from sklearn.model_selection import ParameterGrid

        study = self.study
        known = [{**trial.system_attrs.get("fixed_params", {}), **trial.params} for trial in study.get_trials()]
        taken = {repr(sorted(point.items())) for point in known}
        for point in ParameterGrid({path: list(range_.grid or ()) for path, range_ in self.config.settings.items()}):
            if repr(sorted(point.items())) not in taken:
                study.enqueue_trial(point)
