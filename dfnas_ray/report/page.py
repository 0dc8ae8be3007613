"""Placeholder until the page stands."""

from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir


def write_report(run_dir: RunDir) -> Location:
    """Write the report."""
    return run_dir.location
