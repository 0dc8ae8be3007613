"""How well the pool keeps many actors busy, and whether the driver's memory stays flat over many shards.

    python tests/benchmarks/scaling.py --actors 1 2 8 64 --seconds 1 --shards-per-actor 20 --json scaling.json
    python tests/benchmarks/scaling.py --actors 64 --seconds 0 --shards 10000

A local cluster with as many logical CPUs as actors; a shard is a sleep of fixed length and a manifest entry of the usual
size. Efficiency is the part of the actors' time that they are at work, from when the last of them got its first shard to
when the first of them finished its last: what scheduling costs. The time that many processes take to start on few cores
is told besides, as the whole's efficiency: (shards / actors * seconds) / (first start to last end).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import ray
import torch

from dfnas_ray.config.cluster import ClusterConfig
from dfnas_ray.execution.base import Work
from dfnas_ray.execution.ray.connection import Connection
from dfnas_ray.execution.ray.pool import Pool
from dfnas_ray.ops.latency import device_name


class Sleeper:
    """An actor whose work is to wait."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def ready(self) -> None:
        """Return when the actor has started."""

    def do(self, shard: int) -> dict[str, Any]:
        """Wait, and return a line of a manifest."""
        started = time.time()
        time.sleep(self.seconds)
        return {
            "shard": shard,
            "file": f"shard-{shard:05d}.parquet",
            "rows": 128,
            "bytes": 1_000_000,
            "sha256": "0" * 64,
            "actor": id(self) ^ os.getpid(),
            "started": started,
            "ended": time.time(),
        }


def measure(actors: int, shards: int, seconds: float) -> dict[str, float]:
    """Run the pool; return times, efficiency, and the driver's resident memory at its tenths."""
    started = time.time()
    first, last, made = float("inf"), 0.0, 0
    process = psutil.Process()
    memory = []
    spans: dict[int, list[tuple[float, float]]] = {}

    def on_made(shard: int, entry: dict[str, Any]) -> None:
        nonlocal first, last, made
        first, last, made = min(first, entry["started"]), max(last, entry["ended"]), made + 1
        spans.setdefault(entry["actor"], []).append((entry["started"], entry["ended"]))
        if made % max(1, shards // 10) == 0:
            memory.append(process.memory_info().rss / 2**20)

    actor = ray.remote(num_cpus=1, max_restarts=0)(Sleeper)
    work: Work[int, dict[str, Any]] = Work("synthesis", "shard", lambda device: lambda shard: {})
    failed = Pool(lambda: actor.remote(seconds), work, attempts=3, size=actors).run(range(shards), on_made)
    assert not failed
    assert made == shards
    begin, end = max(min(span)[0] for span in spans.values()), min(max(span)[1] for span in spans.values())
    at_work = sum(max(0.0, min(b, end) - max(a, begin)) for span in spans.values() for a, b in span)
    ideal = -(-shards // actors) * seconds
    return {
        "actors": actors,
        "shards": shards,
        "seconds": seconds,
        "wall": time.time() - started,
        "busy": last - first,
        "efficiency": at_work / (len(spans) * (end - begin)),
        "whole": ideal / (last - first),
        "shards_per_minute": 60 * shards / (last - first),
        "memory_mib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", nargs="+", type=int, default=[1, 2, 8, 64])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--shards", type=int, default=None, help="In all; by default --shards-per-actor for each.")
    parser.add_argument("--shards-per-actor", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parents[2], capture_output=True, text=True
    ).stdout.strip()
    print(f"{device_name(torch.device('cpu'))}, ray {ray.__version__}, commit {commit}", flush=True)
    results = []
    for actors in arguments.actors:
        with closing(Connection(ClusterConfig(num_cpus=actors, num_gpus=0))) as connection:
            connection.ensure()
            for _ in range(arguments.repetitions):
                result = measure(actors, arguments.shards or actors * arguments.shards_per_actor, arguments.seconds)
                results.append(result)
                memory = result["memory_mib"]
                print(
                    f"{actors} actors, {result['shards']} shards of {arguments.seconds:g} s: wall {result['wall']:.1f} s, "
                    f"first start to last end {result['busy']:.1f} s, efficiency {result['efficiency']:.1%}, of the "
                    f"whole {result['whole']:.1%}, "
                    f"{result['shards_per_minute']:.0f} shards/minute; driver {memory[0]:.0f} MiB after a tenth, "
                    f"{memory[-1]:.0f} MiB at the end",
                    flush=True,
                )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"commit": commit, "results": results}, indent=1))


if __name__ == "__main__":
    main()
