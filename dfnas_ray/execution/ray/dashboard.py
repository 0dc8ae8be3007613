"""Jobs on a Ray cluster, through its dashboard: submit, follow, list and stop. Ray is imported only on connecting.

No environment variable of the caller is sent with a job: everybody who may open the dashboard can read a job's runtime
environment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.addresses import dashboard_address, keep_from_proxies, who_sees_the_token

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 5.0
_READY_TRIES = 4
_READY_PAUSE_SECONDS = 2.0
_NO_AGENT = "No available agent"
_NEEDS_TOKEN = (401, 403)


class WorkingDir(Protocol):
    """The files that are sent with a job."""

    def write(self, archive: Path) -> Path:
        """Write the files into one archive, and return its path."""
        ...


@dataclass(frozen=True)
class Job:
    """The state of a job on the cluster."""

    id: str
    status: str
    entrypoint: str
    message: str
    started: float | None
    ended: float | None
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def result(self) -> int:
        """The exit code of a command that waited for this job: the job's own, and never 0 if it did not succeed."""
        if self.status == "SUCCEEDED":
            return 0
        return self.exit_code if self.exit_code is not None and self.exit_code > 0 else 1


class Dashboard:
    """A cluster's dashboard and its jobs."""

    def __init__(self, url: str):
        """Connect to a dashboard.

        Args:
            url: The address of the dashboard, such as http://127.0.0.1:8265.

        Raises:
            ClusterError: nothing answers there within a few seconds, it is no Ray dashboard, or it refuses the token.
        """
        self.url = dashboard_address(url)
        keep_from_proxies(self.url)
        if _has_token() and (said := who_sees_the_token(self.url)):
            logger.warning(said)
        _probe(self.url)
        with self._translated():
            self._client = _client(self.url)

    def submit(
        self, job_id: str, entrypoint: str, working_dir: WorkingDir, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Upload the working directory, and start ``entrypoint`` in it on the cluster's head.

        Raises:
            ClusterError: the archive is too large, or the cluster refuses the job.
        """
        with tempfile.TemporaryDirectory(prefix="dfnas-submit-", ignore_cleanup_errors=True) as folder:
            archive = working_dir.write(Path(folder) / "working_dir.zip")
            with self._translated(job_id):
                _once_the_head_is_ready(
                    lambda: self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=job_id,
                        runtime_env={"working_dir": str(archive)},
                        metadata=dict(metadata or {}),
                    )
                )

    def follow(self, job_id: str, write: Callable[[str], None]) -> Job:
        """Write the output of a job from its beginning, and return the job when it has ended.

        Raises:
            ClusterError: there is no such job, or the connection is lost.
        """

        async def stream() -> None:
            async for text in self._client.tail_job_logs(job_id):
                write(text)

        self.job(job_id)
        with self._translated(job_id):
            asyncio.run(stream())
        job = self.job(job_id)
        if not job.is_over:
            raise ClusterError(
                f"The connection to {self.url} was closed while job {job_id} was running. The job continues there."
            )
        return job

    def logs(self, job_id: str) -> str:
        """Return what the job has printed so far."""
        with self._translated(job_id):
            return str(self._client.get_job_logs(job_id))

    def job(self, job_id: str) -> Job:
        """Return the state of one job."""
        with self._translated(job_id):
            return _job(self._client.get_job_info(job_id))

    def jobs(self) -> list[Job]:
        """Return all submitted jobs, the latest first."""
        with self._translated():
            details = self._client.list_jobs()
        jobs = [_job(each) for each in details if each.submission_id]
        return sorted(jobs, key=lambda job: job.started or 0.0, reverse=True)

    def stop(self, job_id: str) -> bool:
        """Ask the job to end; return False if it was over already."""
        if self.job(job_id).is_over:
            return False
        with self._translated(job_id):
            return bool(self._client.stop_job(job_id))

    @contextmanager
    def _translated(self, job_id: str = "") -> Iterator[None]:
        """Turn an error of Ray's client into a `ClusterError`."""
        from aiohttp import ClientError
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(
                f"The dashboard at {self.url} asks for the cluster's token, and "
                + ("refuses the one given. " if _has_token() else "none was given. ")
                + "Put it into RAY_AUTH_TOKEN, or its file's name into RAY_AUTH_TOKEN_PATH; without either, Ray reads "
                "~/.ray/auth_token."
            ) from error
        except (RuntimeError, OSError, ValueError, ClientError) as error:
            if _NO_AGENT in str(error):
                raise ClusterError(
                    f"The dashboard at {self.url} answers, but the job agent of its head does not. If another Ray runs on "
                    "that machine, it may hold the agent's port, 52365: end it, or start the head with "
                    "--dashboard-agent-listen-port and a free port."
                ) from error
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if "status code 404" in reason:
                raise ClusterError(
                    f"There is no job {job_id} at {self.url}. `dfnas jobs list` shows those that are there."
                ) from error
            raise ClusterError(
                f"The dashboard at {self.url} refused: {reason}. The head's log folder says more."
            ) from error


def _once_the_head_is_ready(submit: Callable[[], object]) -> None:
    """Call ``submit``, with retries while the head's agent, which starts after the dashboard, is not ready."""
    Retrying(
        retry=retry_if_exception(lambda error: _NO_AGENT in str(error)),
        stop=stop_after_attempt(_READY_TRIES),
        wait=wait_fixed(_READY_PAUSE_SECONDS),
        reraise=True,
    )(submit)


def _probe(url: str) -> None:
    """Make sure that a Ray dashboard answers: Ray's own client would wait without end for one that does not."""
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=_ANSWER_SECONDS) as answer:
            found = "ray_version" in json.load(answer)
    except urllib.error.HTTPError as error:
        found = error.code in _NEEDS_TOKEN
        if found:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # otherwise Ray's client sends no token
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ClusterError(
            f"No Ray dashboard answers at {url}: {reason}. Open a tunnel to it (`ray dashboard CLUSTER.yaml`, `kubectl "
            "port-forward`, `ssh -L`), start a cluster (`ray start --head`), or name another with --dashboard."
        ) from error
    if not found:
        raise ClusterError(f"What answers at {url} is not a Ray dashboard. Name another address with --dashboard.")


def _client(url: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    for name in ("job.sdk", "dashboard_sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = url  # if it is set already, Ray uses it instead of the argument
    try:
        return JobSubmissionClient(url)
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id or details.job_id,
        status=str(getattr(details.status, "value", details.status)),
        entrypoint=details.entrypoint,
        message=details.message or "",
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
    )
