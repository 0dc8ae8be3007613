"""Whether two versions of this package leave the same artefacts, byte for byte, and how long each takes.

    python tests/benchmarks/same_artefacts.py 561d76b HEAD experiments/digits.yaml
    python tests/benchmarks/same_artefacts.py HEAD HEAD experiments/digits.yaml --second-address inline

Each side is a commit, which is checked out beside this working tree, and runs the experiment that it finds there, one after
the other. Compared are shards, the results of searches, weights and histories, by their places: folders are named after the
keys of their stages. Times and machines, which differ, are in `done.json` alone, and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ARTEFACTS = (
    "synthesis/*/*.parquet",
    "synthesis/*/manifest.json",
    "synthesis/*/quality.json",
    "search/*/*.json",
    "search/*/*/result.json",
    "retraining/*/*.safetensors",
    "baseline/*/*.safetensors",
    "*/*/history.json",
    "*/*/inputs.json",
)


def run(commit: str, experiment: str, address: str, scratch: Path, name: str) -> tuple[Path, float]:
    """Run the experiment as a commit has it; return the run directory, and the seconds that the command took."""
    checkout, run_dir = scratch / f"checkout-{name}", scratch / f"run-{name}"
    subprocess.run(["git", "worktree", "add", "-q", "--detach", checkout, commit], cwd=REPOSITORY, check=True)
    try:
        command = [
            sys.executable,
            "-m",
            "dfnas_ray",
            "run",
            experiment,
            "--run-dir",
            str(run_dir),
            "--address",
            address,
        ]
        started = time.monotonic()
        subprocess.run(command, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True)
        return run_dir, time.monotonic() - started
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=REPOSITORY, check=True)


def artefacts(run_dir: Path) -> dict[str, bytes]:
    """Return what is compared, by its place; records of stages are no part of it."""
    files = {file for pattern in ARTEFACTS for file in run_dir.glob(pattern) if file.name != "done.json"}
    return {str(file.relative_to(run_dir)): file.read_bytes() for file in sorted(files)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="a commit")
    parser.add_argument("second", help="another one, or the same")
    parser.add_argument("experiment", help="its file, by its path in the repository")
    parser.add_argument("--first-address", default="local")
    parser.add_argument("--second-address", default="local")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dfnas-same-") as folder:
        scratch = Path(folder)
        first, first_seconds = run(args.first, args.experiment, args.first_address, scratch, "first")
        second, second_seconds = run(args.second, args.experiment, args.second_address, scratch, "second")
        ours, theirs = artefacts(first), artefacts(second)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    print(
        json.dumps(
            {
                "artefacts": len(ours),
                "different": different,
                "seconds": [round(first_seconds, 1), round(second_seconds, 1)],
                "ratio": round(second_seconds / first_seconds, 3),
            },
            indent=1,
        )
    )
    sys.exit(1 if different or not ours else 0)


if __name__ == "__main__":
    main()
