"""A worker that ran out of memory is one sentence with the setting, whoever tells of it."""

from __future__ import annotations

import pytest
from ray.exceptions import OutOfMemoryError

from dfnas_ray.execution.ray.errors import last_line, out_of_memory, reason_of

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
    said = reason_of(error, "search")
    assert said == last_line(error, "search") == out_of_memory("search")
    assert "\n" not in said
    assert "cluster.search.memory" in said


def test_a_gpus_memory_is_another_matter():
    error = RuntimeError("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    said = reason_of(error, "search")
    assert said != out_of_memory("search")
    assert "CUDA out of memory" in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "Training failed:\n[Rank 0 Error Snippet]:\nTraceback (most recent call last):\n  File x\n"
            "RuntimeError: Expected to have finished reduction.\nYou can set TORCH_DISTRIBUTED_DEBUG.\n\n In addition, look.",
            "RuntimeError: Expected to have finished reduction.",
        ),
        ("ray::f() (pid=7)\n  File y\nValueError: first\n\nray::g()\n  File z\nKeyError: 'last'", "KeyError: 'last'"),
        ("ray::f()\ntorch.OutOfMemoryError: CUDA out of memory", "torch.OutOfMemoryError: CUDA out of memory"),
        ("ray::f()\nValueError", "ValueError"),
        ("ray.exceptions.RayTaskError(KeyError): x", "ray.exceptions.RayTaskError(KeyError): x"),
        ("Set a.\nError rates are high.\nSet b.", "Set b."),
        ("", "RuntimeError"),
    ],
)
def test_of_a_long_message_the_line_that_names_the_error_is_shown(text, line):
    assert last_line(RuntimeError(text)) == line
