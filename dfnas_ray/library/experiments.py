"""Experiments as other programmes run them: what `dfnas run`, `sweep`, `benchmark`, `compare` and `truth` do."""

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
    """Go the whole way from the teacher to the report.

    Args:
        config: The experiment.
        listener: Told what happens.
        verbose: Show what workers say.

    Returns:
        The finished stages by their names; ``report.html`` lies in the run directory.

    Raises:
        DfnasError: something is to be mended; says what.
    """
    with Session(config, listener, verbose).opened() as session:
        announce(session)
        outcomes = order.run(session)
        report(session)
    return outcomes


def plan(config: ExperimentConfig, listener: Listener | None = None) -> ExperimentPlan:
    """Say what an experiment will take, and start nothing: a few steps of each stage are timed in this process.

    Raises:
        DfnasError: a stage could not begin.
    """
    return timed(Session(config, listener))


def complete_experiment(config: ExperimentConfig, listener: Listener | None = None) -> ExperimentConfig:
    """Return an experiment with what is chosen for its teacher, where it leaves something out.

    Raises:
        DfnasError: the teacher cannot be loaded, or what was given does not go together with what was chosen.
    """
    return Session(config, listener).config


def draft_experiment(
    given: SettingValues, minutes: float, file: str, mirror: bool = False, listener: Listener | None = None
) -> tuple[str, Fitted]:
    """Choose the settings of an experiment for a time on this machine.

    Args:
        given: Settings that stand: at least the teacher.
        minutes: For everything.
        file: What comments call the file.
        mirror: Whether a mirrored image is of the same class.
        listener: Told what happens.

    Returns:
        The text of the file, and what it says.

    Raises:
        DfnasError: a setting is wrong, or nothing can be made of this teacher.
    """
    with tempfile.TemporaryDirectory(prefix="dfnas-") as scratch:
        session = Session(make_experiment({**given, "run_dir": scratch}), listener)
        fitted = fit(given, session.teacher, minutes, mirror)
        return draft(fitted, session.teacher, file, minutes), fitted


def sweep(config: ExperimentConfig, listener: Listener | None = None, verbose: bool = False) -> Outcome[SweptRecord]:
    """Tune settings of synthesis, or go on with it, and write the best ones and the page of figures.

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
    """Rank a table's architectures by every algorithm, compare, and write figures and report.

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
    """Run the same search under different settings with several seeds, and say how what it finds differs.

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
        config: The experiment; `retraining` says on what and how, `evaluation.dataset` what they are measured on.
        out: The CSV file, local or a URI: arch, accuracy in percent, nll, params, macs. Nothing of it is data-free. None:
            the table is in the stage's folder alone.
        architectures: How many are drawn; None: all.
        listener: Told what happens.
        verbose: Show what workers say.

    Raises:
        DfnasError: a setting does not fit, or a training failed; what was trained is kept.
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
    """Write the report of what is finished so far, and the model card of a network; return the report's place."""
    session.record()
    write_card(session.run_dir)
    return write_report(session.run_dir)
