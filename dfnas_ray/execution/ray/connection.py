"""Starting, joining and leaving a Ray cluster, and preparing a worker's process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import ClusterError

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_JOIN_ATTEMPTS = 5
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's banner, printed even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # halves the cost of a trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end an experiment as if it were finished
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a setting that cannot work has no figure, and says so
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # most of a short job's time is this polling
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Connection:
    """A Ray cluster for the time of one command; joined when it is first needed, left at the end.

    A cluster that was there before is left running.
    """

    def __init__(self, config: ClusterConfig, verbose: bool = False):
        self.config, self.verbose = config, verbose
        self._started = False

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._started:
            ray.shutdown()
            self._started = False

    def ensure(self) -> None:
        """Start or join the cluster, unless this process is connected already.

        Raises:
            ClusterError: the address cannot be reached.
        """
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        if ray.is_initialized():
            return
        address = self.config.address
        level = logging.INFO if self.verbose else logging.ERROR
        if not self.verbose:
            for name in ("ray.tune", "ray.train"):  # the traceback of a failed trial; the error says what failed
                logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            if address == "local":
                os.environ.update(token_settings(os.environ))
                ray.init(
                    address="local",
                    num_cpus=self.config.num_cpus,
                    num_gpus=self.config.num_gpus,
                    include_dashboard=False,
                    log_to_driver=self.verbose,
                    logging_level=level,
                )
            else:
                _probe(address)
                _join(address, log_to_driver=self.verbose, logging_level=level)
        except ConnectionAbortedError as error:  # Ray Client alone: its proxy answers, and cannot serve
            raise ClusterError(
                f"Ray at cluster.address {address} answers, and did not start a server for this command in "
                f"{_JOIN_ATTEMPTS} attempts: {_reason(error)}. Look into ray_client_server*.err in the head's log folder "
                "(/tmp/ray/session_latest/logs), or run the command on the cluster, with `dfnas submit`."
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"Ray at cluster.address {address} cannot be reached: {_reason(error)}. "
                "Start a cluster there (`ray start --head`), or use --address local."
            ) from error
        self._started = True


def token_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to the environment, so that a local cluster has an authentication token.

    Ray keeps a token below the home directory, and fails where that cannot be written, as in many containers. The
    token then goes to a temporary directory that is this user's alone; it is removed when the process ends.
    """
    mode = environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token" or environ.get("RAY_AUTH_TOKEN") or environ.get("RAY_AUTH_TOKEN_PATH"):
        return {}  # chosen by the user
    home = environ.get("HOME")  # Ray looks nowhere else
    if home and _can_hold_token(Path(home)):
        return {}
    try:
        folder = Path(tempfile.mkdtemp(prefix="dfnas-ray-"))  # mode 0700
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder / "auth_token"
        path.write_text(secrets.token_hex(32))  # Ray itself writes only below the home directory
    except OSError:
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_TOKEN_PATH": str(path)}


def _can_hold_token(home: Path) -> bool:
    token = home / ".ray" / "auth_token"
    try:
        if token.exists() and token.stat().st_size:
            return os.access(token, os.R_OK)
        token.parent.mkdir(parents=True, exist_ok=True)
        return os.access(token if token.exists() else token.parent, os.W_OK)
    except OSError:
        return False


def worker_device(threads: int) -> torch.device:
    """Prepare the calling worker process: its number of threads, and the device that Ray gave it."""
    torch.set_num_threads(threads)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on a machine without a GPU it says so
    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")


def _join(address: str, **options: Any) -> None:
    """Join a cluster, again if need be: Ray Client's proxy forks beside its own threads, and loses about one server in
    fourteen (ray-project/ray#63202)."""

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None
        logger.warning(
            "Ray Client at %s did not start a server for this command (%s): trying again, attempt %d of %d.",
            address,
            _reason(state.outcome.exception()),
            state.attempt_number + 1,
            _JOIN_ATTEMPTS,
        )

    Retrying(
        retry=retry_if_exception_type(ConnectionAbortedError),
        stop=stop_after_attempt(_JOIN_ATTEMPTS),
        before_sleep=tell,
        reraise=True,
    )(ray.init, address=address, **options)


def _reason(error: BaseException | None) -> str:
    """What Ray says is wrong, in one line: the first of its message, or the last of the traceback that it encloses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return lines[-1 if any("Traceback" in line for line in lines) else 0].rstrip(".")


def _probe(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and port.isdigit():
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)):
            pass
