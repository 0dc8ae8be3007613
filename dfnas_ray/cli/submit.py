"""`dfnas submit`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import dfnas_ray
from dfnas_ray.cli.console import Terminal, err, out
from dfnas_ray.cli.jobs import DashboardUrl, follow
from dfnas_ray.cli.options import ExperimentFile, Overrides, RunDirectory, Verbose, read_overrides
from dfnas_ray.execution.ray.dashboard import DEFAULT_DASHBOARD, Dashboard
from dfnas_ray.submission.prepare import Submission, prepare


class Command(StrEnum):
    """What the cluster is to do."""

    run = "run"
    synthesize = "synthesize"
    search = "search"
    retrain = "retrain"
    evaluate = "evaluate"
    sweep = "sweep"
    benchmark = "benchmark"


def submit(
    file: ExperimentFile,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    dashboard: DashboardUrl = DEFAULT_DASHBOARD,
    command: Annotated[Command, typer.Option("--command", help="What the cluster is to do.")] = Command.run,
    working_dir: Annotated[
        Path | None,
        typer.Option("--working-dir", help="The folder that is sent; by default the present one.", show_default=False),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the job's output until it ends.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent and called.")] = False,
    verbose: Verbose = False,
) -> None:
    """Run a command on a Ray cluster: send the working directory to its dashboard, and show what the job prints.

    Sent is the working directory without what git ignores, run directories and symbolic links, and this package.
    Exits with the job's exit code. Ctrl-C leaves the job running.
    """
    submission = prepare(command.value, file, read_overrides(overrides, run_dir), working_dir, verbose)
    if dry_run:
        _show(submission)
        return
    there = Dashboard(dashboard)
    terminal = Terminal()
    terminal.say(f"Sending {_size(submission)} to {there.url}")
    metadata = {"experiment": submission.config.name, "dfnas_ray": dfnas_ray.__version__}
    there.submit(submission.id, submission.entrypoint, submission.working_dir, metadata)
    terminal.say(f"Job {submission.id}; its results go to {submission.config.run_directory}")
    if wait:
        sys.exit(follow(there, submission.id))
    out.print(Text(submission.id), soft_wrap=True)


def _show(submission: Submission) -> None:
    for name, path in submission.working_dir.files.items():
        out.print(Text(f"{path.stat().st_size:>12,}  {name}"), soft_wrap=True)
    err.print(Text(f"{_size(submission)} would be sent, and this called there:"), soft_wrap=True)
    out.print(Text(submission.entrypoint), soft_wrap=True)


def _size(submission: Submission) -> str:
    sent = submission.working_dir
    return f"{len(sent.files)} files ({sent.num_bytes / 1e6:.1f} MB)"
