"""What it saves to search while images are still being made, against a search that waits for all of them.

    python tests/benchmarks/streaming.py --json streaming.json

Synthesis and search of experiments/digits-spos.yaml, shortened, on a local cluster of two CPUs, one after the other:

- *shared*: one synthesis actor and one trial, with one CPU each; a search that waits has two actors before it.
- *elsewhere*: images come from machines that the search has no use for (GPUs, say): finished shards are copied into the
  run directory, one every --seconds. The search has both CPUs in either case.

Wall times are from the start of the stages to the chosen architecture; Ray and the teacher are there before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import torch

from dfnas_ray import load_experiment
from dfnas_ray.config.experiment import ExperimentConfig
from dfnas_ray.execution.base import Crew
from dfnas_ray.execution.ray.connection import Connection
from dfnas_ray.ops.latency import device_name
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.synthesis import Synthesis

ROOT = Path(__file__).parents[2]
SHORT = [
    "cluster.num_cpus=2",
    "search.algorithm.epochs=12",
    "search.algorithm.evolution={generations: 3, population: 12, parents: 4, mutations: 6, crossovers: 6}",
    "search.selection={finalists: 2, epochs: 8}",
]


def shards_from(source: Path, seconds: float) -> Callable[..., None]:
    """Return a stand-in for the making of shards, which copies one every so many seconds."""

    def make(stage: Synthesis, crew: Crew, on_made: Any) -> None:
        crew.on_started()
        for entry in Manifest.read(Location.parse(source)).shards:
            time.sleep(seconds)
            (stage.location / entry.file).write_bytes((source / entry.file).read_bytes())
            on_made(entry.shard, entry)

    return make


def measure(config: ExperimentConfig, teacher: Path) -> dict[str, Any]:
    """Run synthesis and search; return wall times and what was found."""
    shutil.copytree(teacher, Path(config.run_directory) / "teacher")
    started = time.monotonic()
    with Session(config).opened() as session:
        search = order.search(session)
        synthesis = order.synthesize(session)
    wall = time.monotonic() - started
    trials = (search.location / "trials.json").read_json()
    return {
        "wall": wall,
        "synthesis": synthesis.summary["seconds"],
        "beside_search": synthesis.summary.get("seconds_beside_search", 0.0),
        "search": search.summary["seconds"],
        "actors": synthesis.summary["actors"],
        "genotype": search.summary["genotype"],
        "score": search.summary.get("score"),
        "images": [[e["images"] for e in t["history"] if "images" in e] for t in trials],
        "folder": str(synthesis.location),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="Between two shards from elsewhere.")
    parser.add_argument("--start-after", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    print(f"{device_name(torch.device('cpu'))}, ray {ray.__version__}, commit {commit}", flush=True)
    early = f"search.start_after_shards={arguments.start_after}"
    one_seed, two_seeds = "search.seeds=[0]", "search.seeds=[0, 1]"
    runs: dict[str, tuple[bool, list[str]]] = {  # elsewhere?, settings
        "shared, waits, two actors": (False, [one_seed]),
        "shared, starts early, one actor": (False, [one_seed, early]),
        "elsewhere, waits": (True, [two_seeds]),
        "elsewhere, starts early": (True, [two_seeds, early]),
    }
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:

        def load(*settings: str) -> ExperimentConfig:
            folder = f"run_dir={scratch}/{len(results)}"
            return load_experiment(
                ROOT / "experiments/digits-spos.yaml", [*SHORT, f"seed={arguments.seed}", folder, *settings]
            )

        config = load(one_seed)
        teacher = Path(scratch) / "teacher"
        config.teacher.load(teacher)
        with closing(Connection(config.cluster)) as connection:
            connection.ensure()
            for name, (is_elsewhere, settings) in runs.items():
                source = Path(next(iter(results.values()))["folder"]) if results else Path(scratch)
                making = shards_from(source, arguments.seconds) if is_elsewhere else Synthesis.make
                with patch.object(Synthesis, "make", making):
                    results[name] = result = measure(load(*settings), teacher)
                print(
                    f"{name}: {result['wall']:.1f} s (synthesis {result['synthesis']:.1f} s, search {result['search']:.1f} "
                    f"s, side by side {result['beside_search']:.1f} s); {result['genotype']}, score {result['score']:.4f}; "
                    f"training images per epoch {result['images']}",
                    flush=True,
                )
    for first, second in (
        ("shared, waits, two actors", "shared, starts early, one actor"),
        ("elsewhere, waits", "elsewhere, starts early"),
    ):
        print(f"{second} / {first}: {results[second]['wall'] / results[first]['wall']:.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"commit": commit, "results": results}, indent=1))


if __name__ == "__main__":
    main()
