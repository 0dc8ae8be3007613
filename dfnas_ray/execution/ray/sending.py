"""Objects that are sent to workers, and the error message for an object that cannot be sent."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray import cloudpickle

from dfnas_ray.config.code import package_of, path_of
from dfnas_ray.errors import ClusterError, first_line

_REFUSALS = (TypeError, AttributeError, ValueError, pickle.PicklingError)


def put(value: object) -> Any:
    """Put an object into the object store and return the reference.

    Raises:
        ClusterError: the object cannot be sent. The message names the part at fault, its owner, and the package.
    """
    try:
        return ray.put(value)
    except _REFUSALS:
        check_can_be_sent(value)
        raise


def check_can_be_sent(*values: object) -> None:
    """Make sure that these objects can be sent to workers.

    Raises:
        ClusterError: as `put` does.
    """
    for value in values:
        error = _refusal(value)
        if error is not None:
            raise ClusterError(_explain(value, error)) from error


def _explain(value: object, error: Exception) -> str:
    names, owner, part = _culprit(value, set())
    package = package_of(type(owner).__module__)
    whose = path_of(type(owner)) + (f" ({package})" if package else "")
    what = f"{'.'.join(names)} of {whose}" if names else whose
    return (
        f"A {type(value).__name__} cannot be sent to the cluster's workers: {what} cannot be pickled: "
        f"{first_line(_refusal(part) or error)}. Whatever is sent must be picklable: no lock, open file or generator as an "
        "attribute. Or set cluster.address to inline."
    )


def _culprit(value: object, seen: set[int]) -> tuple[list[str], object, object]:
    """Return the innermost part that cannot be pickled: its path from the object that holds it, that object, and the part."""
    seen.add(id(value))
    for name, part in _parts(value):
        if id(part) in seen or _refusal(part) is None:
            continue
        names, owner, inner = _culprit(part, seen)
        has_name = type(owner).__module__ in ("builtins", "_thread")  # a lock, or a list: its owner is named instead
        return ([name, *names], value, inner) if has_name else (names, owner, inner)
    return [], value, value


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple | set):
        yield from ((str(number), part) for number, part in enumerate(value))
    else:
        for attribute in ("__dict__", "__pydantic_extra__", "__pydantic_private__"):
            yield from (getattr(value, attribute, None) or {}).items()


def _refusal(value: object) -> Exception | None:
    try:
        cloudpickle.dumps(value)
    except _REFUSALS as error:
        return error
    return None
