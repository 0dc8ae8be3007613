"""Searchers for Tune. Their state is kept elsewhere, so that none of it is in Tune's snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from dfnas_ray.algorithms.base import SCORE
from dfnas_ray.algorithms.multi_fidelity import EPOCHS
from dfnas_ray.algorithms.proposals import ArchitectureStudy
from dfnas_ray.sweeps.record import SweepRecord


class _Proposer(Searcher):  # type: ignore[misc]  # Ray has no types here
    def save(self, checkpoint_path: str) -> None:
        """Write an empty state: nothing has to be unpickled."""
        Path(checkpoint_path).write_text("{}\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Ignore a result that is not the last one."""


class ArchitectureSearch(_Proposer):
    """Proposes the candidates of a multi-fidelity search."""

    def __init__(self, study: ArchitectureStudy):
        super().__init__(metric=SCORE, mode="max")
        self.study = study
        self._numbers: dict[str, int] = {}  # Tune's trial: the candidate's number

    def suggest(self, trial_id: str) -> Any:
        """Return the next candidate."""
        proposal = self.study.propose()
        if proposal is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = proposal.number
        return {"candidate": proposal._asdict()}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Report the score at a rung to the study."""
        self.study.observe(self._numbers[trial_id], result[EPOCHS], result[SCORE])

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Report the end of a candidate to the study."""
        number = self._numbers[trial_id]
        if error or not result:
            self.study.fail(number)
        else:
            self.study.end(number, result[EPOCHS], result[SCORE])


class SettingsSearch(_Proposer):
    """Proposes the settings of a sweep's trials."""

    def __init__(self, record: SweepRecord, seed: int):
        super().__init__(metric="rounds", mode="max")  # nothing is compared here
        self.record, self.seed = record, seed

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial. After an interruption it is the one that would have come without it."""
        trial = self.record.ask(self.seed)
        compared = max(trial.intermediate_values, default=0)
        return {**trial.params, "number": trial.number, "compared": compared}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record a measurement. Tune passes a trial's last result only to `on_trial_complete`."""
        self.record.observe(result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Record how a trial ended. If its process died too often, it stays open, and the next command continues it."""
        if not error and result and "number" in result and not self.record.tell(result):
            self.record.prune(result["number"])
        self.record.keep()
