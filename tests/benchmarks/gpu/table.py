"""The runbook's results as a page: ``python -m tests.benchmarks.gpu.table OUT > experiments/results/gpu.md``."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dfnas_ray.ranking.statistics import draw_resamples, measure_agreement

HEAD = """# On a GPU

What the runbook measured. Each piece is one process; seconds include its start-up.

    python -m tests.benchmarks.gpu --data DATA --out OUT --minutes 9
    python -m tests.benchmarks.gpu.table OUT > experiments/results/gpu.md

"""


def page(folder: Path) -> str:
    """Return the page of all pieces that have a result."""
    parts = [HEAD + Path(__file__).with_name("notes.md").read_text()]
    shown = {"check": check, "cifar10": cifar10, "question": question, "speed": speed, "kernels": kernels}
    for name, show in shown.items():
        for file in sorted(folder.glob(f"{name}*.json")):
            result = json.loads(file.read_text())
            where = f"{result['device']}, torch {result['torch']}, commit {result['commit']}, {result['date']}"
            note = "" if result.get("done") else " The piece ran out of time."
            parts.append(f"## {file.stem}\n\n{where}, {result['seconds']:.0f} s.{note}\n\n{show(result)}")
    return "\n".join(parts)


def rows(head: tuple[str, ...], lines: list[tuple[object, ...]]) -> str:
    """Return a table."""
    table = [head, tuple("---" for _ in head), *lines]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in table)


def check(result: dict[str, Any]) -> str:
    return (
        f"The teacher has {result['accuracy']:.2%} of the test images. A product of bfloat16 matrices ran at "
        f"{result['matmul_tflops']} TFLOP/s, a copy within the device at {result['copy_tb_per_s']} TB/s.\n"
    )


def cifar10(result: dict[str, Any]) -> str:
    settings = result["settings"]["method"]
    student = settings["student"]
    last = result["curve"][-1]
    intro = (
        f"From the published ResNet-20's checkpoint alone, seed {result['seed']}: a fresh ResNet-20 has "
        f"**{last['accuracy']:.2%} of the real test images after {last['minutes']} minutes**, measuring not counted. "
        f"{result['batches']} batches of {settings['batch_size']} images, {settings['adaptation_steps']} adaptation steps; "
        f"{student['steps']} student steps of {student['batch_size']} after each batch from number "
        f"{student['warmup_batches'] + 1} on, learning rate {student['optimizer']['lr']}.\n\n"
    )
    points = [(p["batch"], p["minutes"], f"{p['accuracy']:.2%}", p["bn_statistics"]) for p in result["curve"]]
    return intro + rows(("batches", "minutes", "accuracy", "weighted R_bn"), points)


def question(result: dict[str, Any]) -> str:
    """Show every source's agreement over its seeds, and how much it differs from the others, chain by chain."""
    accuracies = np.array(result["accuracies"])
    resamples = draw_resamples(len(accuracies), 0)
    by_source: dict[str, list[dict[str, Any]]] = {}
    for name, cell in result["cells"].items():
        by_source.setdefault(name.rsplit(",", 1)[0], []).append(cell)
    agreements = {
        source: measure_agreement(np.array([cell["scores"] for cell in cells]), accuracies, resamples)
        for source, cells in by_source.items()
    }
    lines: list[tuple[object, ...]] = []
    for source, found in agreements.items():
        cells = by_source[source]
        seconds = (f"{statistics.mean(cell[key] for cell in cells):.0f}" for key in ("train_s", "score_s"))
        below = "; ".join(
            f"{other}: {found.tau.mean - agreements[other].tau.mean:+.3f} ({low:+.3f} .. {high:+.3f})"
            for other in agreements
            if other != source
            for low, high in [np.quantile(found.resampled_tau - agreements[other].resampled_tau, (0.025, 0.975))]
        )
        taus = ", ".join(f"{value:.3f}" for value in found.tau.per_seed)
        regrets = (f"{found.regret[top].mean:.2f}" for top in (1, 5))
        interval = f"{found.tau.low:.3f} .. {found.tau.high:.3f}"
        lines.append((source, f"{found.tau.mean:.3f}", interval, taus, *regrets, " + ".join(seconds), below))
    intro = (
        f"SPOS on NAS-Bench-Macro, full size: {result['epochs']} epochs on {result['images']:,} images of each source (real ones "
        f"are not data-free), {len(accuracies)} chains scored with the supernet's weights. The chains' MACs alone: tau "
        f"{result['macs']['tau']}, regret {result['macs']['regret_1']} and {result['macs']['regret_5']} points.\n\n"
    )
    head = ("source", "tau", "95 %", "by seed", "regret@1", "regret@5", "seconds (training + scoring)", "tau beside")
    return intro + rows(head, lines)


def speed(result: dict[str, Any]) -> str:
    lines = []
    for name, figures in result.items():
        if isinstance(figures, dict):
            figures = dict(figures)
            launched = figures.pop("per_batch", None)
            if launched:
                figures["launches of a batch"] = f"{launched['kernels']} kernels, {launched['graphs']} graphs"
            shown = ", ".join(
                f"{key.replace('_per_s', '/s').replace('_', ' ')}: {value}" for key, value in figures.items()
            )
            lines.append((name, shown))
    return rows(("what", "figures"), lines)


def kernels(result: dict[str, Any]) -> str:
    facts = {"device", "torch", "cuda", "commit", "date", "seconds", "done"}
    lines: list[tuple[object, ...]] = []
    for name, value in result.items():
        if isinstance(value, list) and value:
            lines.append((name, "; ".join(" ".join(line.split())[:90] for line in value[:5])))
        elif name not in facts and value:
            lines.append(
                (name, value if isinstance(value, float) else ", ".join(f"{k}: {v}" for k, v in value.items()))
            )
    return rows(("what", "figures; of a step all its kernels, and those that take longest"), lines)


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
