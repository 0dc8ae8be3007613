"""The results of a sweep's trials, and the choice of the best one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from dfnas_ray.errors import DfnasError
from dfnas_ray.storage.altered import Say, read_or_remove
from dfnas_ray.storage.location import Count, JsonObject, Location, Seconds
from dfnas_ray.sweeps.ranges import Parameter

TRIALS_FILE = "trials.json"

Figures: TypeAlias = dict[str, Count | float]
"""The figures of a trial, by name."""


class TriedSettings(BaseModel):
    """One trial of a sweep: an entry of ``trials.json``.

    Attributes:
        parameters: Values by dotted path, as Optuna stores them.
        settings: The same values in the form of an experiment file.
        values: Values of the objectives; None if the trial did not finish.
        figures: All measured figures, by name.
        error: Why the trial failed, if it did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    number: Count
    state: str
    parameters: dict[str, Parameter]
    settings: JsonObject
    values: tuple[float, ...] | None = Field(min_length=1)
    figures: Figures
    seconds: Seconds | None
    error: str | None


class TriedTrials(RootModel[tuple[TriedSettings, ...]]):
    """The content of ``trials.json``: all trials of a sweep."""


class SweptTrial(BaseModel):
    """The result of a trial, or why it failed: ``result.json`` in its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Count | None = None
    rounds: Count | None = None
    figures: Figures = {}
    seconds: Seconds | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.error is None and self.rounds is None:
            raise ValueError("it has neither rounds nor an error")
        return self

    @classmethod
    def read(cls, folder: Location, number: int, say: Say) -> Self | None:
        """Return the result from a trial's folder; None if there is none. If it was altered, say so and return None."""

        def fault(result: Self) -> str:
            is_its = result.number in (None, number)
            return "" if is_its else f"it says that it is the result of trial {result.number}"

        return read_or_remove(folder / "result.json", cls, say, fault)


def read_trials(folder: Location) -> list[TriedSettings]:
    """Return the trials of a finished sweep from its folder.

    Raises:
        StorageError: the file is missing, was written by another version, or was altered.
    """
    return list((folder / TRIALS_FILE).read_model(TriedTrials).root)


def pareto_front(values: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Return the indices of the points of the Pareto front.

    A point is on the front if no other point is at least as good in every objective and better in one.
    """
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    points = [[sign * value for sign, value in zip(signs, point, strict=True)] for point in values]

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and list(a) != list(b)

    return [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]


def best_of(trials: Sequence[TriedSettings], directions: Sequence[str]) -> tuple[TriedSettings, list[int]]:
    """Return the best finished trial, and the numbers of the trials of the Pareto front, best first.

    With several objectives, the best of the Pareto front is the one nearest to the ideal point: the best value of each
    objective, all scaled to the front's range.

    Raises:
        DfnasError: no trial is finished.
    """
    finished = [(trial, trial.values) for trial in trials if trial.values is not None]
    if not finished:
        reasons = [trial.error for trial in trials if trial.error]
        raise DfnasError(
            f"No trial of the sweep could be finished. The first error was: {(reasons or ['none was recorded'])[0]}"
        )
    front = [finished[index] for index in pareto_front([values for _, values in finished], directions)]
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    points = signs * np.array([values for _, values in front], dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    distance = np.linalg.norm((points - low) / np.where(high > low, high - low, 1.0), axis=1)
    order = sorted(range(len(front)), key=lambda index: (distance[index], front[index][0].number))
    shown = order if len(directions) > 1 else order[:1]  # with one objective, the front consists of ties
    return front[order[0]][0], [front[index][0].number for index in shown]
