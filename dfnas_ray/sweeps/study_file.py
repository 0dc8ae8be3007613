"""The file of a sweep's study, which may come from a stranger: it is looked through before anything is done with it.

It is a SQLite database. A damaged one, or one of something else, is a fault of the file; a full disk or a lock is not.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from dfnas_ray.errors import StorageError, first_line, shortened
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.result import Figures
from dfnas_ray.sweeps.study import distribution_of

STUDY = "sweep"
"""The study's name in its file."""

_MAGIC = b"SQLite format 3\0"
_TIMEOUT = 60.0  # seconds that a lock is waited for
_OF_THE_STORAGE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""Errors that are not the file's content's."""
_FIGURES: TypeAdapter[Figures] = TypeAdapter(Figures)


def open_storage(path: Path) -> RDBStorage:
    """Open a study's file, or begin one."""
    return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _TIMEOUT}})


def fault_of(path: Path, config: SweepConfig) -> str:
    """Return why a file cannot be the study of a sweep, as the end of a sentence; empty if it can.

    Raises:
        StorageError: it cannot be read now, whatever it holds.
    """
    if not path.is_file():
        return "is a folder, a pipe or a device"
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return "is no SQLite database"
        return _fault_of_database(path) or _fault_of_study(path, config)
    except Exception as error:  # a damaged file can end in an error of any kind
        if any(code & 0xFF in _OF_THE_STORAGE for code in _sqlite_codes(error)):
            raise StorageError(f"The sweep's study {path} cannot be read: {sqlite_reason(error)}.") from error
        return f"is damaged, or is none of this sweep ({sqlite_reason(error)})"


def sqlite_reason(error: BaseException) -> str:
    """Return what an error of the database says, without its statement."""
    causes = [cause for cause in _causes(error) if isinstance(cause, sqlite3.Error)]
    return shortened(first_line(causes[-1] if causes else error), 200).rstrip(".")


def _fault_of_database(path: Path) -> str:
    with closing(sqlite3.connect(path, timeout=_TIMEOUT)) as database:
        (answer, *_) = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            return f"is damaged ({shortened(str(answer), 200)})"
        kinds = "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')"
        if (foreign := database.execute(kinds).fetchone()) is not None:  # they compute when others are read or written
            return f"holds {shortened(repr(foreign[0]), 60)}, which is no table of Optuna's"
    return ""


def _fault_of_study(path: Path, config: SweepConfig) -> str:
    storage = open_storage(path)
    try:
        if STUDY not in [study.study_name for study in storage.get_all_studies()]:
            return "holds no sweep"
        study = optuna.load_study(study_name=STUDY, storage=storage)
        if [direction.name.lower() for direction in study.directions] != config.directions:
            return "has other objectives"
        if not isinstance(study.user_attrs.get("first_trials", 1), int):
            return "does not say how many trials it began with"
        for number, trial in enumerate(study.get_trials(deepcopy=False)):
            if trial.number != number:
                return f"has no trial {number}"
            if fault := _fault_of_trial(trial, config):
                return f"holds {fault} in trial {number}"
    finally:
        storage.remove_session()
        storage.engine.dispose()
    return ""


def _fault_of_trial(trial: FrozenTrial, config: SweepConfig) -> str:
    expected = {path: distribution_of(range_) for path, range_ in config.settings.items()}
    for path, distribution in trial.distributions.items():
        if expected.get(path) != distribution:
            return f"another range of {shortened(path, 60)}"
        if not distribution._contains(distribution.to_internal_repr(trial.params[path])):
            return f"a value of {shortened(path, 60)} out of its range"
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.params.keys() != expected.keys():
        return "not all settings"
    values = trial.values if trial.state is TrialState.COMPLETE else ()
    if values is None or not all(isinstance(value, float) and math.isfinite(value) for value in values):
        return "a value that is no number"
    if values and len(values) != len(config.objectives):
        return "another number of values"
    if not all(isinstance(value, float) for value in trial.intermediate_values.values()):
        return "a value that is no number"
    _FIGURES.validate_python(trial.user_attrs)
    return ""


def _sqlite_codes(error: BaseException) -> Iterator[int]:
    for cause in _causes(error):
        if isinstance(cause, sqlite3.Error) and (code := getattr(cause, "sqlite_errorcode", None)) is not None:
            yield code


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
