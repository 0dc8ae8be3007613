"""A Python in which Ray is not installed: `block` in this process, `environment` for those that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path


class _Blocker:
    """Finds no Ray, as if it were not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return None


def block() -> None:
    """Make ``import ray`` fail from now on."""
    assert "ray" not in sys.modules, "too late"
    sys.meta_path.insert(0, _Blocker())  # type: ignore[arg-type]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that cannot import Ray; ``folder`` is for what makes it so."""
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport no_ray\nno_ray.block()\n"
    )
    repository = Path(__file__).parents[2]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PYTHONPATH": f"{folder}:{repository}",
        "COLUMNS": "500",
    }
