"""Asynchronous halving (ASHA, Li et al. 2020, arXiv:1810.05934) that continues where an earlier command stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler


class NumberedHalving(AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray has no types here
    """Tune's halving, which knows a trial by our own number, so that it recognises a trial that is continued.

    Under a new name its score would be compared with its own earlier one, and enter rungs that it has passed already.
    """

    def __init__(self, number_of: Callable[[Mapping[str, Any]], int], **options: Any):
        """Set up the rungs.

        Args:
            number_of: Finds a trial's number among its settings.
            **options: The options of Tune's scheduler.
        """
        super().__init__(**options)
        self.number_of = number_of

    def tell(self, number: int, results: Iterable[tuple[int, float]]) -> str:
        """Tell the scheduler the earlier results of a trial, and return its decision on the trial now.

        Args:
            number: The number of the trial.
            results: Pairs of a value of ``time_attr`` and a value of ``metric``.
        """
        trial, decision = _stand_in(number), self.CONTINUE
        super().on_trial_add(None, trial)
        for amount, value in results:
            decision = super().on_trial_result(None, trial, {self._time_attr: amount, self.metric: value})
        return str(decision)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Assign a bracket to a new trial. A known trial stays in its own."""
        if self._numbered(trial).trial_id not in self._trial_info:
            super().on_trial_add(tune_controller, self._numbered(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a trial at a rung. A trial that is known there continues."""
        decision: str = super().on_trial_result(tune_controller, self._numbered(trial), result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget the trial, not its results."""
        super().on_trial_complete(tune_controller, self._numbered(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget the trial, not its results."""
        super().on_trial_remove(tune_controller, self._numbered(trial))

    def _numbered(self, trial: Any) -> SimpleNamespace:
        return _stand_in(self.number_of(trial.config))


def _stand_in(number: int) -> SimpleNamespace:
    return SimpleNamespace(trial_id=f"number-{number}")
