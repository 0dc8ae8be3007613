"""Run experiments from Python: the same as `dfnas run`, `sweep`, `benchmark`, `compare` and `truth`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dfnas_ray.config.experiment import ExperimentConfig, make_experiment
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.errors import ConfigError
from dfnas_ray.library.plans import announce, announce_comparison, announce_sweep, announce_truth
from dfnas_ray.library.plans import plan as timed
from dfnas_ray.planning.budget import Fitted, fit
from dfnas_ray.planning.draft import draft
from dfnas_ray.planning.estimate import ExperimentPlan
from dfnas_ray.progress import Listener
from dfnas_ray.report.benchmark_section import write_figure
from dfnas_ray.report.card import write_card
from dfnas_ray.report.comparison_page import write_comparison
from dfnas_ray.report.page import write_report
from dfnas_ray.report.sweep_page import write_sweep_report
from dfnas_ray.storage.location import Location
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.benchmark import Benchmark, BenchmarkRecord
from dfnas_ray.workflow.comparison import ComparisonRecord, VariantComparison
from dfnas_ray.workflow.run import Outcomes
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.stage import Outcome
from dfnas_ray.workflow.sweep import Sweep, SweptRecord
from dfnas_ray.workflow.truth import TABLE, Truth, TruthRecord, check_truth


def run(config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False) -> Outcomes:
    """Run a whole experiment, from the teacher to the report.

    Args:
        config: The experiment.
        listener: Receives progress and messages.
        verbose: Whether to show the output of workers.

    Returns:
        The finished stages by their names. ``report.html`` is in the run directory.

    Raises:
        DfnasError: the user has to fix something. The message says what.
    """
    with Session(config, listener, verbose).opened() as session:
        announce(session)
        outcomes = order.run(session)
        report(session)
    return outcomes


def plan(config: ExperimentConfig, listener: Listener | None = None) -> ExperimentPlan:
    """Return the time and memory that an experiment will take. Only a few steps of each stage run, in this process.

    Raises:
        DfnasError: a stage could not begin.
    """
    return timed(Session(config, listener))


def complete_experiment(config: ExperimentConfig, listener: Listener | None = None) -> ExperimentConfig:
    """Return the experiment, with missing settings chosen for its teacher.

    Raises:
        DfnasError: the teacher cannot be loaded, or the given settings do not fit the chosen ones.
    """
    return Session(config, listener).config


def draft_experiment(
    given: SettingValues, minutes: float, file: str, mirror: bool = False, listener: Listener | None = None
) -> tuple[str, Fitted]:
    """Return an experiment file that suits a teacher and a time on this machine.

    Args:
        given: Settings that are kept: at least the teacher.
        minutes: The time for the whole experiment.
        file: The path of the file, as comments in it name it.
        mirror: Whether a mirrored image has the same class.
        listener: Receives progress and messages.

    Returns:
        The text of the file, and the experiment in it.

    Raises:
        DfnasError: a setting is wrong, or the teacher cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="dfnas-") as scratch:
        session = Session(make_experiment({**given, "run_dir": scratch}), listener)
        fitted = fit(given, session.teacher, minutes, mirror)
        return draft(fitted, session.teacher, file, minutes), fitted


def sweep(config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False) -> Outcome[SweptRecord]:
    """Run or continue a sweep over settings of synthesis, and write the best settings and the page of figures.

    Raises:
        DfnasError: the experiment has no sweep section, a range does not suit the teacher, or no trial could be finished.
    """
    with Session(config, listener, verbose).opened() as session:
        stage = Sweep(session)
        stage.check()
        announce_sweep(stage)
        outcome = stage.finish()
        write_sweep_report(outcome.location, config.name)
    return outcome


def benchmark(
    config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False
) -> Outcome[BenchmarkRecord]:
    """Rank a table's architectures by every algorithm, compare the rankings, and write figures and the report.

    Raises:
        DfnasError: the table cannot be used, an algorithm cannot rank, or a ranking failed.
    """
    with Session(config, listener, verbose).opened() as session:
        stage = Benchmark(session)
        stage.check()
        outcome = stage.finish()
        write_figure(outcome.location)
        report(session)
    return outcome


def compare(
    config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False
) -> Outcome[ComparisonRecord]:
    """Run the same search under different settings with several seeds, and compare the results.

    Raises:
        DfnasError: the experiment has no comparison section, a variant cannot be run, or a search failed.
    """
    with Session(config, listener, verbose).opened() as session:
        stage = VariantComparison(session)
        stage.check()
        announce_comparison(stage)
        outcome = stage.finish()
        write_comparison(outcome.location, config.name)
        report(session)
    return outcome


def truth(
    config: ExperimentConfig,
    out: str | Path | Location | None = None,
    architectures: int | None = None,
    listener: Listener | None = None,
    verbose: bool = False,
) -> Outcome[TruthRecord]:
    """Train architectures of the experiment's space on its real, labelled images, and write a table for benchmarks.

    Args:
        config: The experiment. `retraining` sets the training, `evaluation.dataset` the images for the accuracy.
        out: The CSV file, local or a URI: arch, accuracy in percent, nll, params, macs. It is not data-free. None: the
            table is in the stage's folder only.
        architectures: The number of architectures to draw; None: all.
        listener: Receives progress and messages.
        verbose: Whether to show the output of workers.

    Raises:
        DfnasError: a setting does not fit, or a training failed. Finished trainings are kept.
    """
    check_truth(config, architectures)
    file = None if out is None else Location.parse(out, "--out")
    if file is not None and file.is_local and Path(file.path).is_dir():
        raise ConfigError(f"--out ({out}) is a folder. Give the name of a file, such as {file / 'table.csv'}.")
    with Session(config, listener, verbose).opened() as session:
        stage = Truth(session, architectures)
        stage.check()
        announce_truth(stage)
        outcome = stage.finish()
        if file is not None:
            file.write_bytes((outcome.location / TABLE).read_bytes())
    return outcome


def report(session: Session) -> Location:
    """Write the report of all finished stages and the model card of the network; return the report's location."""
    session.record()
    write_card(session.run_dir)
    return write_report(session.run_dir)
