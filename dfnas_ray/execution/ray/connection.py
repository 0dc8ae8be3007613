"""Starting, joining and leaving a Ray cluster, and preparing a worker's process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from typing import Any, NoReturn

import ray
import torch
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_fixed,
)

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.last_words import LastWords
from dfnas_ray.execution.machine import allow_open_files, start_advice
from dfnas_ray.execution.ray.lost import Watch, start_watched
from dfnas_ray.execution.reaper import Reaper
from dfnas_ray.execution.token import token_settings

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_JOIN_ATTEMPTS = 5
_START_ATTEMPTS, _START_PAUSE = 3, 5.0
_DIED_AT_START = (
    "error: This command ended while Ray was starting: it was killed, or a process of Ray died, perhaps for want of memory. "
    "What is finished is kept; run the same command again. Ray's logs are in /tmp/ray/session_latest/logs."
)
_SETTINGS_OF_RAY = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's banner, printed even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # halves the cost of a trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end an experiment as if it were finished
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a setting that cannot work has no figure, and says so
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # most of a short job's time is this polling
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "3",  # of a task that runs out of memory; by default it is tried for ever
}


class Connection:
    """The connection of one command to a Ray cluster: opened when it is first needed, closed at the end.

    A cluster that was running before keeps running.
    """

    def __init__(self, config: ClusterConfig, verbose: bool = False):
        self.config, self.verbose = config, verbose
        self._started = False
        self._watch: Watch | None = None
        self._reaper: Reaper | None = None

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        watch, self._watch = self._watch, None
        if watch is not None and watch.owns_cluster:
            watch.stop()
        if self._started:
            ray.shutdown()  # for ever, if the head accepts connections but does not answer
            self._started = False
        if watch is not None and not watch.owns_cluster:
            watch.stop()
        if self._reaper is not None:
            self._reaper.stop()
            self._reaper = None

    def check_lost(self) -> None:
        """End the command with a message if the cluster was lost. Call this after an error that may come of it."""
        if self._watch is not None:
            self._watch.check()

    def ensure(self) -> None:
        """Start or join the cluster, unless this process is connected already.

        Raises:
            ClusterError: the address cannot be reached.
        """
        for name, value in _SETTINGS_OF_RAY.items():
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
                allow_open_files()
                os.environ.update(token_settings(os.environ))
                self._reaper = self._reaper or Reaper()
                _start(
                    self._reaper,
                    num_cpus=self.config.num_cpus,
                    num_gpus=self.config.num_gpus,
                    log_to_driver=self.verbose,
                    logging_level=level,
                )
            else:
                _probe(address)
                _join(address, log_to_driver=self.verbose, logging_level=level)
        except ConnectionAbortedError as error:  # only with Ray Client: its proxy answers, but cannot serve
            raise ClusterError(
                f"Ray at cluster.address {address} answers, but did not start a server for this command in "
                f"{_JOIN_ATTEMPTS} attempts: {_reason(error)}. Look into ray_client_server*.err in the head's log folder "
                "(/tmp/ray/session_latest/logs), or run the command on the cluster, with `dfnas submit`."
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            if address == "local":
                raise ClusterError(
                    f"Ray cannot be started on this machine: {_reason(error)}. {start_advice(error)}"
                ) from error
            raise ClusterError(
                f"Ray at cluster.address {address} cannot be reached: {_reason(error)}. "
                "Start a cluster there (`ray start --head`), or use --address local."
            ) from error
        self._started = True
        self._watch = Watch(address)
        if self._reaper is not None:
            self._reaper.expect("")  # from now on the watch speaks


def worker_device(threads: int) -> torch.device:
    """Set the calling worker process's number of threads, and return the device that Ray gave it."""
    torch.set_num_threads(threads)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns on a machine without a GPU
    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")


def _start(reaper: Reaper, **options: Any) -> None:
    """Start a local cluster; try again if the machine is so busy that the start times out."""

    def again(state: RetryCallState) -> None:
        assert state.outcome is not None
        reason = _reason(state.outcome.exception())
        logger.warning("Ray did not start (%s): attempt %d of %d.", reason, state.attempt_number + 1, _START_ATTEMPTS)
        ray.shutdown()

    def give_up(state: RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        raise RuntimeError(_reason(error)) from error

    Retrying(
        retry=retry_if_exception(lambda error: "timed out" in str(error)),
        stop=stop_after_attempt(_START_ATTEMPTS),
        before_sleep=again,
        wait=wait_fixed(_START_PAUSE),
        retry_error_callback=give_up,
    )(_init_watched, reaper, include_dashboard=False, **options)


def _join(address: str, **options: Any) -> None:
    """Join a cluster; try again if Ray Client fails.

    Its proxy forks while it runs threads, and loses about one server in fourteen (ray-project/ray#63202).
    """

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
    )(_init, address=address, **options)


def _init_watched(reaper: Reaper, **options: Any) -> None:
    def end(words: LastWords) -> NoReturn:
        reaper.expect("")
        words.speak()

    reaper.expect(_DIED_AT_START)
    try:
        with start_watched("local", end):
            _init(address="local", **options)
    except BaseException:
        reaper.expect("")
        raise


def _init(**options: Any) -> None:
    """Start or join a cluster, and restore the handler of SIGTERM: Ray's would end this process at once."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(**options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _reason(error: BaseException | None) -> str:
    """Return Ray's error in one line: the first of its message, or the last of the traceback that it encloses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return lines[-1 if any("Traceback" in line for line in lines) else 0].rstrip(".")


def _probe(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and port.isdigit():
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)):
            pass
