"""The file of a sweep's study. It may come from an untrusted source, so it is checked before it is used.

It is a SQLite database. Damaged or foreign content is a fault of the file; a full disk or a lock is not.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
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
_TIMEOUT = 60.0  # seconds to wait for a lock
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
"""Errors of the storage, not of the file's content."""
_FIGURES: TypeAdapter[Figures] = TypeAdapter(Figures)


def open_storage(path: Path) -> RDBStorage:
    """Open a study's file, or create it, and return the storage."""
    # Not through the URL: "?", "%" and braces mean something else there, and versions of SQLAlchemy differ in them.
    connect = partial(sqlite3.connect, path, timeout=_TIMEOUT, check_same_thread=False)
    return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


def fault_of(path: Path, config: SweepConfig) -> str:
    """Return why a file cannot be the study of a sweep, as the end of a sentence; empty if it can.

    Raises:
        StorageError: the file cannot be read at the moment, for a reason that is not its content.
    """
    if not path.is_file():
        return "is a folder, a pipe or a device"
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return "is not a SQLite database"
        return _fault_of_database(path) or _fault_of_study(path, config)
    except Exception as error:  # a damaged file may cause any error
        if any(code & 0xFF in _OF_THE_STORAGE for code in _sqlite_codes(error)):
            raise StorageError(f"The sweep's study {path} cannot be read: {sqlite_reason(error)}.") from error
        return f"is damaged, or does not belong to this sweep ({sqlite_reason(error)})"


def sqlite_reason(error: BaseException) -> str:
    """Return the message of a database error, without the SQL statement."""
    causes = [cause for cause in _causes(error) if isinstance(cause, sqlite3.Error)]
    return shortened(first_line(causes[-1] if causes else error), 200).rstrip(".")


def _fault_of_database(path: Path) -> str:
    with closing(sqlite3.connect(path, timeout=_TIMEOUT)) as database:
        (answer, *_) = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            return f"is damaged ({shortened(str(answer), 200)})"
        kinds = "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')"
        if (foreign := database.execute(kinds).fetchone()) is not None:  # they run when tables are read or written
            return f"holds {shortened(repr(foreign[0]), 60)}, which is not one of Optuna's tables"
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
        return "a value that is not a number"
    if values and len(values) != len(config.objectives):
        return "another number of values"
    if not all(isinstance(value, float) for value in trial.intermediate_values.values()):
        return "a value that is not a number"
    _FIGURES.validate_python(trial.user_attrs)
    return ""


def _sqlite_codes(error: BaseException) -> Iterator[int]:
    for cause in _causes(error):
        if isinstance(cause, sqlite3.Error) and (code := getattr(cause, "sqlite_errorcode", None)) is not None:
            yield code


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
