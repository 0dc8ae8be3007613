"""Values that workers share."""

from __future__ import annotations

from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Shared(Protocol[T_co]):
    """A handle of a value that all workers can get. Only the handle is sent to them."""

    def get(self) -> T_co:
        """Return the value. An error of the function that computes it is raised here."""
        ...
