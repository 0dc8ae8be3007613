"""Values in Ray's object store; workers unpickle such handles, so little is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError

from dfnas_ray.execution.ray.errors import raised_in_worker


@dataclass(frozen=True)
class Stored:
    """A value in the object store."""

    reference: Any

    def get(self) -> Any:
        """Return it; an error of whoever computed it is raised as that one raised it."""
        try:
            return ray.get(self.reference)
        except RayTaskError as error:
            raise raised_in_worker(error) from None
