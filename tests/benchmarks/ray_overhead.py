"""What Ray adds to a shard: dispatch, serialisation and commit, the actor's start aside.

Makes the same shards of experiments/digits.yaml in this process and on one Ray actor, both with one thread, alternating,
and prints the share that the actor takes longer. Bar: at most 5 %.

    python tests/benchmarks/ray_overhead.py [--shards 8]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import ray
import torch

from dfnas_ray import load_experiment
from dfnas_ray.execution.base import Work
from dfnas_ray.execution.ray.board import ProgressBoard
from dfnas_ray.execution.ray.executor import RayExecutor
from dfnas_ray.execution.ray.pool import actor_maker
from dfnas_ray.storage.location import Location
from dfnas_ray.synthesis.job import ShardJob, TeacherLabel
from dfnas_ray.synthesis.work import MakeShards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=8)
    shards = parser.parse_args().shards
    root = Path(__file__).parents[2]
    config = load_experiment(root / "experiments/digits.yaml")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        teacher = config.teacher.load(Path(folder))
        place = Location.parse(folder).make_dir()
        job = ShardJob(config.synthesis, 0, "benchmark", TeacherLabel.of(teacher), place)
        marker = place / "marker"
        marker.write_bytes(b"")
        executor = RayExecutor(config.cluster, marker)
        executor.open()
        work = Work("synthesis", "shard", MakeShards(executor.share(teacher), job, ProgressBoard()))
        actor = actor_maker(work, config.cluster.synthesis, marker)()
        ray.get(actor.ready.remote())
        synthesizer = config.synthesis.method.synthesizer(teacher, config.synthesis, torch.device("cpu"))
        list(synthesizer.make(0, 0))  # warm up both sides
        ray.get(actor.do.remote(0))
        here, there = [], []
        for shard in range(shards):
            started = time.perf_counter()
            list(synthesizer.make(0, shard))
            here.append(time.perf_counter() - started)
            started = time.perf_counter()
            ray.get(actor.do.remote(shard))
            there.append(time.perf_counter() - started)
        executor.close()
    ratios = [b / a - 1 for a, b in zip(here, there, strict=True)]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, Ray {ray.__version__}, {commit.strip()}"
    )
    print(f"in this process {statistics.median(here):.2f} s per shard (median of {shards})")
    print(f"on a Ray actor  {statistics.median(there):.2f} s per shard, committed")
    print(
        f"Ray adds {statistics.median(ratios):+.1%} (median; {min(ratios):+.1%} .. {max(ratios):+.1%}); "
        f"{sum(there) / sum(here) - 1:+.1%} in total"
    )


if __name__ == "__main__":
    main()
