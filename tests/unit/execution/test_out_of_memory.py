"""A worker that ran out of memory is one sentence with the setting, whoever tells of it."""

from __future__ import annotations

import pytest
from ray.exceptions import OutOfMemoryError

from dfnas_ray.execution.ray.errors import OUT_OF_MEMORY, last_line, reason_of

REPORT = "\n".join(
    [
        "Task was killed due to the node running low on memory.",
        "Memory on the node (IP: 192.0.2.2, ID: ab) where the task was running was 15.6GB / 16.0GB (0.97)",
        *(f"PID\tMEM(GB)\tCOMMAND {number}" for number in range(40)),
        "set the environment variable `RAY_memory_monitor_refresh_ms` to zero.",
    ]
)


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError(REPORT),
        RuntimeError(f"Traceback ...\nray.exceptions.OutOfMemoryError: {REPORT}"),  # as Tune and Train tell it
    ],
)
def test_it_is_one_sentence_that_names_the_setting(error):
    assert reason_of(error) == last_line(error) == OUT_OF_MEMORY
    assert "\n" not in OUT_OF_MEMORY
    assert "cluster.STAGE.memory" in OUT_OF_MEMORY


def test_a_gpus_memory_is_another_matter():
    error = RuntimeError("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    assert reason_of(error) != OUT_OF_MEMORY
    assert "CUDA out of memory" in reason_of(error)
