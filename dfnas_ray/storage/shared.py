"""Values that workers share."""

from __future__ import annotations

from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Shared(Protocol[T_co]):
    """A value that lies where all workers can get it. Only the handle is sent."""

    def get(self) -> T_co:
        """Return the value; what computes it may raise here."""
        ...
