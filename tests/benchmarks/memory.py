"""How much memory a search and a retraining take for sets of several sizes, beside the files that they map.

    python tests/benchmarks/memory.py --images 500 1000 2000 --size 224
    python tests/benchmarks/memory.py --images 500 1000 2000 --size 224 --free 100

``--free`` lets the product believe in so many free megabytes, so that larger sets are in a file. Each step runs in a process of
its own, for one epoch of small networks. "Memory" is the largest that the process had for itself (``RssAnon``), which the
system cannot take back; pages of files are not in it. The images are noise, which PNG does not make smaller.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

import dfnas_ray as dfnas
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.shards import ShardInfo, encode_shard, manifest_entry, shard_name

CLASSES, PER_SHARD = 10, 250
SPACE = {
    "kind": "nasbench_macro",
    "stem_channels": 4,
    "stem_stride": 2,
    "stage_layers": [1, 1, 1],
    "stage_channels": [4, 8, 8],
    "head_channels": 16,
}
STEPS = ("load", "search", "retrain")


def small_teacher(size: int, classes: int = CLASSES) -> dfnas.Teacher:
    """Return an untrained network that costs little."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7, stride=4, padding=3),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, classes),
    )
    return dfnas.Teacher.from_model(model.eval(), image_shape=(3, size, size), mean=(0.5,) * 3, std=(0.25,) * 3)


def write_set(folder: Path, images: int, size: int) -> None:
    """Write a set of noise."""
    place, entries, teacher = Location.parse(folder).make_dir(), [], small_teacher(size)
    shards = images // PER_SHARD
    for shard in range(shards):
        rng = np.random.default_rng(shard)
        pixels = rng.integers(0, 256, (PER_SHARD, 3, size, size), dtype=np.uint8)
        labels, rounds = np.arange(PER_SHARD) % CLASSES, np.zeros(PER_SHARD, np.int64)
        logits = rng.normal(size=(PER_SHARD, CLASSES)).astype(np.float32)
        info = ShardInfo("key", shard, shards, teacher.fingerprint, [], image_shape=[3, size, size])
        data = encode_shard(info, pixels, labels, rounds, logits)
        (place / shard_name(shard)).write_bytes(data)
        entries.append(manifest_entry(shard, data, PER_SHARD))
    Manifest(key="key", shards=tuple(entries)).write(place)


class Peak:
    """The largest memory that this process had for itself, looked at every 10 ms."""

    def __init__(self) -> None:
        self.bytes = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.bytes = max(self.bytes, *(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
            time.sleep(0.01)


def run_step(step: str, folder: Path, size: int, free: int | None) -> None:
    """Run one step in this process, and print what it took."""
    if free is not None:
        from dfnas_ray.storage import memory

        memory.free_memory = lambda: free * 10**6
    torch.set_num_threads(1)
    teacher = small_teacher(size)
    peak, began = Peak(), time.monotonic()
    images = dfnas.Images.load(folder, teacher)
    training = {"batch_size": 32, "epochs": 1}
    if step == "search":
        algorithm = {"kind": "zero_cost", "proxies": ["naswot"], "evolution": {"generations": 1, "population": 2}}
        dfnas.search(teacher, images, space=SPACE, algorithm=algorithm, seeds=[0], max_macs=None, selection=training)
    elif step == "retrain":
        space = NASBenchMacroConfig(**SPACE).space(teacher.image_shape, CLASSES)
        dfnas.retrain(teacher, images, Architecture(SPACE, space, space.cheapest()), **training)
    print(json.dumps({"bytes": peak.bytes, "seconds": round(time.monotonic() - began, 1)}))


def main() -> None:
    """Print one row per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--free", type=int, help="free memory in MB, as the product is told")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(arguments.step[0], Path(arguments.step[1]), arguments.size, arguments.free)
        return
    print("| images | pixels | " + " | ".join(f"{step}: memory, s" for step in STEPS) + " |")
    print("|---" * (2 + len(STEPS)) + "|")
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            write_set(Path(folder), count, arguments.size)
            row = [f"{count:,}", f"{count * 3 * arguments.size**2 / 1e6:,.0f} MB"]
            for step in STEPS:
                free = [] if arguments.free is None else ["--free", str(arguments.free)]
                line = [sys.executable, __file__, "--size", str(arguments.size), *free, "--step", step, folder]
                told = json.loads(
                    subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
                )
                row.append(f"{told['bytes'] / 1e6:,.0f} MB, {told['seconds']:.0f}")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
