"""`dfnas submit`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from dfnas_ray.cli.console import Terminal, err, out
from dfnas_ray.cli.jobs import DashboardUrl, follow
from dfnas_ray.cli.lazy import load_command
from dfnas_ray.cli.options import ExperimentFile, Overrides, RunDirectory, Verbose, read_overrides
from dfnas_ray.errors import ConfigError, printable
from dfnas_ray.execution.addresses import DEFAULT_DASHBOARD
from dfnas_ray.execution.ray.dashboard import Dashboard
from dfnas_ray.storage.uri import is_uri
from dfnas_ray.submission.prepare import Submission, prepare
from dfnas_ray.version import __version__

_FIRST_FILES = 20
"""Number of files that are listed before they are sent."""


class Command(StrEnum):
    """The commands that a cluster can run."""

    run = "run"
    synthesize = "synthesize"
    search = "search"
    retrain = "retrain"
    evaluate = "evaluate"
    sweep = "sweep"
    benchmark = "benchmark"
    compare = "compare"
    truth = "truth"


def submit(
    file: ExperimentFile,
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- OPTIONS",
            help="Options of the command itself, such as: -- --genotype 22212220.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    run_dir: RunDirectory = None,
    dashboard: DashboardUrl = DEFAULT_DASHBOARD,
    command: Annotated[Command, typer.Option("--command", help="The command that the cluster runs.")] = Command.run,
    working_dir: Annotated[
        Path | None,
        typer.Option("--working-dir", help="Folder to send; by default the current one.", show_default=False),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="PATTERN",
            help="Also send these files: a pattern as in .gitignore, or the path of a hidden file; may be repeated.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the job's output until it ends.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the files and the command; send nothing.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run a command on a Ray cluster: send the working directory to its dashboard, and show what the job prints.

    It sends the files that git tracks, or without git the Python sources; the experiment; the files that its settings
    name; and this package. Hidden files, files named like credentials, run directories and symbolic links are not sent.
    Exits with the job's exit code. Ctrl-C leaves the job running.
    """
    check_options(command.value, file, options or [])
    settings = read_overrides(overrides, run_dir)
    submission = prepare(command.value, file, settings, working_dir, verbose, include or (), options or ())
    terminal = Terminal()
    for note in submission.working_dir.notes:
        terminal.say(note)
    if dry_run:
        _show(submission)
        return
    there = Dashboard(dashboard)
    _list_files(submission, err, _FIRST_FILES)
    terminal.say(f"Sending {_size(submission)} to {there.url}")
    metadata = {"experiment": submission.config.name, "dfnas_ray": __version__}
    there.submit(submission.id, submission.entrypoint, submission.working_dir, metadata)
    terminal.say(f"Job {submission.id}; its results go to {submission.config.run_directory}")
    if wait:
        sys.exit(follow(there, submission.id))
    out.print(Text(submission.id), soft_wrap=True)


_GIVEN_HERE = {
    "overrides": "--set",
    "run_dir": "--run-dir",
    "verbose": "--verbose",
    "address": "--dashboard",
    "table": "--set benchmark.table=PATH",
}
"""Options of commands, by their parameters, and what `dfnas submit` has in place of each."""


def check_options(command: str, file: str, options: list[str]) -> None:
    """Refuse options that the command does not have, and those that only `dfnas submit` can check."""
    given = load_command(command).make_context(command, [file, *options]).params
    for name, instead in _GIVEN_HERE.items():
        if given.get(name):
            raise ConfigError(
                f"After --, no option for {name} may stand ({' '.join(options)}). Give {instead} before it."
            )
    out_file = given.get("out")
    if out_file and not is_uri(out_file) and not Path(out_file).is_absolute():
        raise ConfigError(
            f"--out ({out_file}) would be lost with the job. Give a URI, or an absolute path on shared storage."
        )


def _show(submission: Submission) -> None:
    _list_files(submission, out)
    err.print(Text(f"{_size(submission)} would be sent, and this command would run there:"), soft_wrap=True)
    out.print(Text(submission.entrypoint), soft_wrap=True)


def _list_files(submission: Submission, console: Console, at_most: int | None = None) -> None:
    """Print the files with their sizes; with ``at_most``, some of the working directory's and the number of others."""
    sent = submission.working_dir
    listed = [name for name, path in sent.files.items() if at_most is None or path == sent.root / name]
    for name in listed[:at_most]:
        console.print(Text(f"{sent.files[name].stat().st_size:>12,}  {printable(name)}"), soft_wrap=True)
    if shown := len(sent.files) - len(listed[:at_most]):
        console.print(Text(f"{'':12}  and {shown} more, this package's included; --dry-run lists all"), soft_wrap=True)


def _size(submission: Submission) -> str:
    sent = submission.working_dir
    return f"{len(sent.files)} files ({sent.num_bytes / 1e6:.1f} MB)"
