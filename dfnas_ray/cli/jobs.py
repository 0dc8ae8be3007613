"""`dfnas jobs list|status|logs|stop`."""

from __future__ import annotations

import shlex
import sys
import time
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from dfnas_ray.cli.console import Terminal, err, out
from dfnas_ray.errors import EXIT_INTERRUPTED, ClusterError
from dfnas_ray.execution.addresses import DEFAULT_DASHBOARD
from dfnas_ray.execution.ray.dashboard import Dashboard, Job

app = typer.Typer(help="Manage the jobs of `dfnas submit`.", no_args_is_help=True, add_completion=False)

DashboardUrl = Annotated[
    str,
    typer.Option(
        "--dashboard",
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_DASHBOARD_ADDRESS"],
        help=f"Address of the cluster's Ray dashboard; by default {DEFAULT_DASHBOARD}.",
        show_default=False,
    ),
]
JobId = Annotated[str, typer.Argument(help="Name of the job, as `dfnas submit` and `dfnas jobs list` show it.")]


@app.command("list")
def list_jobs(dashboard: DashboardUrl = DEFAULT_DASHBOARD) -> None:
    """Show the jobs of the cluster, latest first."""
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "status", "started", "time"):
        table.add_column(heading, justify="right" if heading == "time" else "left", no_wrap=True)
    table.add_column("command", overflow="fold")
    for job in Dashboard(dashboard).jobs():
        table.add_row(job.id, job.status, _clock(job.started), _duration(job), Text(_short(job.entrypoint)))
    out.print(table)


@app.command()
def status(job_id: JobId, dashboard: DashboardUrl = DEFAULT_DASHBOARD) -> None:
    """Show the status of a job. Exits with the job's exit code, or with 0 while it is running."""
    job = Dashboard(dashboard).job(job_id)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in (
        ("job", job.id),
        ("status", job.status),
        ("command", job.entrypoint),
        ("started", _clock(job.started)),
        ("time", _duration(job)),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("message", job.message),
    ):
        if value:
            table.add_row(name, Text(value))
    out.print(table)
    sys.exit(job.result if job.is_over else 0)


@app.command()
def logs(
    job_id: JobId,
    dashboard: DashboardUrl = DEFAULT_DASHBOARD,
    follow_it: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the output until the job ends; exit with its exit code.")
    ] = False,
) -> None:
    """Print the output of a job."""
    there = Dashboard(dashboard)
    if follow_it:
        sys.exit(follow(there, job_id))
    _write(there.logs(job_id))


@app.command()
def stop(job_id: JobId, dashboard: DashboardUrl = DEFAULT_DASHBOARD) -> None:
    """Stop a job. Its finished work is kept: submit the same command again to continue."""
    stopped = Dashboard(dashboard).stop(job_id)
    Terminal().say(f"Job {job_id} {'is being stopped' if stopped else 'had already ended'}")


def follow(there: Dashboard, job_id: str) -> int:
    """Print the output of a job until it ends, and return its exit code. Ctrl-C leaves the job running."""
    where = "" if there.url == DEFAULT_DASHBOARD else f" --dashboard {shlex.quote(there.url)}"
    ways = f"Watch it: dfnas jobs logs {job_id} --follow{where}. Stop it: dfnas jobs stop {job_id}{where}"
    try:
        job = there.follow(job_id, _write)
    except KeyboardInterrupt:
        err.print(Text(f"\nJob {job_id} goes on. {ways}"), soft_wrap=True)
        return EXIT_INTERRUPTED
    except ClusterError as error:
        raise ClusterError(f"{error} {ways}") from error
    if job.result:
        err.print(Text(f"Job {job_id} {job.status.lower()}: {job.message}"), soft_wrap=True)
    return job.result


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _clock(moment: float | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _duration(job: Job) -> str:
    if job.started is None:
        return ""
    minutes, seconds = divmod(round((job.ended or time.time()) - job.started), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _short(entrypoint: str) -> str:
    return entrypoint.removeprefix("python -m dfnas_ray ").removesuffix(" --set cluster.address=auto")
