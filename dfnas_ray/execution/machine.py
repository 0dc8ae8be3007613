"""This machine's limits for a cluster that is started on it or a job that runs on it, and advice if a start fails."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import tempfile

import torch

from dfnas_ray.errors import ClusterError

JOB_OF_RAY = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable by which Ray tells a submitted job's command its settings."""

_WANTED_FILES, _FEWEST_FILES = 65_536, 512


def is_submitted() -> bool:
    """Whether this process is the command of a job that was submitted to a Ray cluster."""
    return JOB_OF_RAY in os.environ


def use_cores_of_job() -> None:
    """In a submitted job, let torch use all cores that this process may use, unless the user set the number.

    Ray starts the command of a job with OMP_NUM_THREADS=1.
    """
    is_rays_choice = os.environ.get("OMP_NUM_THREADS") == "1" and "MKL_NUM_THREADS" not in os.environ
    if not is_submitted() or not is_rays_choice or torch.get_num_threads() != 1:
        return
    with contextlib.suppress(LookupError, TypeError, ValueError):  # Ray's own text
        if "OMP_NUM_THREADS" in json.loads(os.environ[JOB_OF_RAY])["runtime_env"]["env_vars"]:
            return
    torch.set_num_threads(available_cores())


def available_cores() -> int:
    """Return the number of cores that this process may use: by its affinity, and by its container's limit."""
    import joblib  # imported late: few commands need it

    return int(joblib.cpu_count())


def allow_open_files() -> None:
    """Raise the limit on open files as far as allowed: with a shell's usual limit, a cluster dies without a message.

    Raises:
        ClusterError: the limit stays too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _WANTED_FILES if hard == unlimited else min(hard, _WANTED_FILES)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != unlimited and soft < _FEWEST_FILES:
        raise ClusterError(
            f"Ray cannot be started on this machine: a process may open {soft} files at once, and Ray needs {_FEWEST_FILES}. "
            "Raise the limit (ulimit -Hn 4096), or use --address inline: the same work in one process."
        )


def start_advice(error: BaseException) -> str:
    """Return what to do if a cluster does not start on this machine."""
    text = str(error)
    if "AF_UNIX" in text or "107 bytes" in text:
        return f"Its sockets' paths are too long: set TMPDIR to a short path, such as /tmp (it is {tempfile.gettempdir()})."
    if "Too many open files" in text or getattr(error, "errno", None) == errno.EMFILE:
        return "Raise the number of open files (ulimit -n 4096), or use --address inline."
    if "timed out" in text:
        return "The machine is too busy: wait until other programs have ended, or use --address inline."
    return "Look into /tmp/ray/session_latest/logs, or use --address inline: the same work in one process."
