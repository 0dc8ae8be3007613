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
        """Return the value. An error of the function that computed it is raised without Ray's wrapper."""
        try:
            return ray.get(self.reference)
        except RayTaskError as error:
            raise raised_in_worker(error) from None
