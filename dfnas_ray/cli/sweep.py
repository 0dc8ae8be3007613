"""`dfnas sweep`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.cli.options import Address, AsJson, ExperimentFile, Overrides, RunDirectory, Verbose, read
from dfnas_ray.cli.summary import print_json
from dfnas_ray.sweeps.objectives import OBJECTIVES

if TYPE_CHECKING:
    from dfnas_ray.workflow.stage import Outcome
    from dfnas_ray.workflow.sweep import SweptRecord
from dfnas_ray.sweeps.result import TriedSettings

_ROWS = 5
_ROWS_OF_FRONT = 10


def sweep(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Tune the coefficients of synthesis, as the file's sweep section says, and write the best ones as an experiment.

    An interrupted sweep continues. A larger sweep.trials adds trials to the finished ones.
    """
    from dfnas_ray.library import sweep as run_sweep  # heavy import: kept out of `dfnas --help`
    from dfnas_ray.workflow.sweep import check_address, sweep_config

    config = read(file, overrides, run_dir, address)
    sweep_config(config)
    check_address(config)
    outcome = run_sweep(config, Terminal(), verbose)
    if as_json:
        print_json([outcome], outcome.location / "sweep.html")
    else:
        show_trials(outcome)


def show_trials(outcome: Outcome[SweptRecord]) -> None:
    """Print the best trials of a finished sweep, and what to run next."""
    from dfnas_ray.sweeps.result import read_trials

    record, trials = outcome.record, read_trials(outcome.location)
    states = ", ".join(f"{count} {state}" for state, count in record.trials.items())
    table = Table(title=f"The best of {len(trials)} trials ({states})", title_justify="left")
    paths = list(record.best.settings)
    for heading in ("trial", *record.objectives, *(path.removeprefix("synthesis.") for path in paths)):
        table.add_column(heading, justify="right", overflow="fold")
    for trial in best_trials(trials, record):
        table.add_row(
            str(trial.number),
            *(f"{value:.4g}" for value in trial.values or ()),
            *(_text(trial.settings.get(path, "")) for path in paths),
        )
    out.print(table)
    if not record.data_free:
        out.print("Not data-free: a real model or real labels took part in the choice.")
    for title, name in (
        ("Best settings", "best.yaml"),
        ("Report", "sweep.html"),
    ):
        out.print(Text(f"{title}: {outcome.location / name}"), soft_wrap=True)
    out.print(Text(f"Next: dfnas run {shlex.quote((outcome.location / 'best.yaml').address)}"), soft_wrap=True)


def best_trials(trials: Sequence[TriedSettings], record: SweptRecord) -> list[TriedSettings]:
    """Return the trials to show, best first: the top few of one objective, or the Pareto front of several."""
    finished = {trial.number: (trial, trial.values) for trial in trials if trial.values is not None}
    if len(record.objectives) > 1:
        return [finished[number][0] for number in record.pareto_front if number in finished][:_ROWS_OF_FRONT]
    sign = -1 if OBJECTIVES.find(record.objectives[0]).direction == "maximize" else 1
    in_order = sorted(finished.items(), key=lambda item: (sign * item[1][1][0], item[0]))
    return [trial for _, (trial, _) in in_order][:_ROWS]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
