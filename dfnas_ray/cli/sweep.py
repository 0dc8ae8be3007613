"""`dfnas sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import Terminal, out
from dfnas_ray.cli.options import Address, ExperimentFile, Overrides, RunDirectory, Verbose, read
from dfnas_ray.sweeps.objectives import OBJECTIVES

if TYPE_CHECKING:
    from dfnas_ray.workflow.stage import Outcome, Record

_ROWS = 5
_ROWS_OF_FRONT = 10


def sweep(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Tune the coefficients of synthesis, as the file's sweep section says, and write the best as an experiment.

    An interrupted sweep goes on; a larger sweep.trials adds trials to those that are there.
    """
    from dfnas_ray.library import sweep as run_sweep  # brings everything: kept out of `dfnas --help`
    from dfnas_ray.workflow.sweep import check_address, sweep_config

    config = read(file, overrides, run_dir, address)
    sweep_config(config)
    check_address(config)
    _show(run_sweep(config, Terminal(), verbose))


def _show(outcome: Outcome[Record]) -> None:
    summary = outcome.summary
    trials = (outcome.location / "trials.json").read_json()
    states = ", ".join(f"{count} {state}" for state, count in summary["trials"].items())
    table = Table(title=f"The best of {len(trials)} trials ({states})", title_justify="left")
    paths = list(summary["best"]["settings"])
    for heading in ("trial", *summary["objectives"], *(path.removeprefix("synthesis.") for path in paths)):
        table.add_column(heading, justify="right", overflow="fold")
    for trial in best_trials(trials, summary):
        table.add_row(
            str(trial["number"]),
            *(f"{value:.4g}" for value in trial["values"]),
            *(_text(trial["settings"][path]) for path in paths),
        )
    out.print(table)
    if not summary["data_free"]:
        out.print("Not data-free: a real model or real labels took part in the choice.")
    for title, name in (
        ("Best settings", "best.yaml"),
        ("Report", "sweep.html"),
    ):
        out.print(Text(f"{title}: {outcome.location / name}"), soft_wrap=True)
    out.print(Text(f"Next: dfnas run {outcome.location / 'best.yaml'}"), soft_wrap=True)


def best_trials(trials: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trials to show, the best first: a few by a single objective, the Pareto front of several."""
    finished = {trial["number"]: trial for trial in trials if trial["values"] is not None}
    if len(summary["objectives"]) > 1:
        return [finished[number] for number in summary["pareto_front"]][:_ROWS_OF_FRONT]
    sign = -1 if OBJECTIVES.find(summary["objectives"][0]).direction == "maximize" else 1
    return sorted(finished.values(), key=lambda trial: (sign * trial["values"][0], trial["number"]))[:_ROWS]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
