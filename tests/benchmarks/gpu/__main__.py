"""The runbook: what a GPU is to measure, in the order in which it is worth most.

    python -m tests.benchmarks.gpu --data DATA --out OUT --minutes 9
    python -m tests.benchmarks.gpu.table OUT > experiments/results/gpu.md

Each piece runs in a process of its own, has a time limit and leaves OUT/PIECE.json; pieces that have a result are left out,
so the same command goes on. No Ray is needed. DATA holds the published ResNet-20, CIFAR-10's images as Parquet files, and
half of NAS-Bench-Macro's table.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.benchmarks.gpu.bench import Bench

SECONDS = {"check": 40, "speed": 150, "kernels": 130, "cifar10": 480, "question": 540}
"""Every piece, in order, and how long it may take."""


def run_piece(name: str, arguments: argparse.Namespace, seconds: float) -> None:
    """Run one piece in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(arguments.data, arguments.out, device, seconds, arguments.small, arguments.seed)
    result = importlib.import_module(f"tests.benchmarks.gpu.{name}").run(bench)
    bench.write(name, {**result, "done": True})


def main(argv: list[str] | None = None) -> int:
    """Run the pieces that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--pieces", nargs="+", choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--small", action="store_true", help="sizes of a test of the runbook itself")
    parser.add_argument("--seed", type=int, default=0, help="of the images of cifar10; question has seeds of its own")
    parser.add_argument("--one", choices=SECONDS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        run_piece(arguments.one, arguments, arguments.seconds)
        return 0
    ends = time.monotonic() + 60 * arguments.minutes
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.pieces:
        if Bench(arguments.data, arguments.out, torch.device("cpu"), 0, seed=arguments.seed).read(name).get("done"):
            continue
        seconds = min(SECONDS[name], ends - time.monotonic())
        if seconds < 20:
            print(f"{name}: no time left; run the same command again")
            return 75
        options = ["--data", arguments.data, "--out", arguments.out, "--one", name, "--seconds", seconds]
        options += ["--seed", arguments.seed]
        command = [sys.executable, "-m", "tests.benchmarks.gpu", *map(str, options), *["--small"] * arguments.small]
        print(f"{name}: at most {seconds:.0f} s", flush=True)
        try:
            code = subprocess.run(command, timeout=seconds + 20, check=False).returncode
        except subprocess.TimeoutExpired:
            code = 124
        print(f"{name}: exit code {code}", flush=True)
        if code and name == "check":
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
