"""The benchmark's section: every ranking with its figures, real images marked, safe with any text."""

import re
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfnas_ray.report.benchmark_section import write_figure
from dfnas_ray.report.page import write_report


def figures(mean, seeds):
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "deviation": 0.0123, "per_seed": [mean] * seeds}


def row(title, images, tau, **changes):
    seeds = 1 if images is None else 2
    regrets = {name: figures(1.25, seeds) for name in ("regret_1", "regret_5")}
    return {
        "title": title, "ranking": title.split(" on ")[0], "images": images, "data_free": images != "real", "best": False,
        "tau": figures(tau, seeds), "rho": figures(tau + 0.1, seeds), **regrets, "tau_gain": figures(0.01, seeds),
        "seconds_per_architecture": None if images is None else 1.5, **changes,
    }  # fmt: skip


@pytest.fixture
def add_benchmark():
    """Return a function that adds a finished benchmark to a run directory."""

    def add(run, *rows, count=30):
        stage = run.stage("benchmark", {"seed": 7})
        stage.begin()
        run.set_latest([stage])
        summary = {
            "space": "nasbench_macro", "architectures": count, "seeds": [0, 1], "level": 0.95, "resamples": 1000,
            "table": {"rows": 50, "used": [0, 40], "accuracy_column": "accuracy", "best_in_sample": 93.0},
        }  # fmt: skip
        (stage.location / "benchmark.json").write_json({**summary, "rankings": list(rows)})
        rng = np.random.default_rng(0)
        columns = {"architecture": [f"{n}" for n in range(count)], "accuracy": rng.normal(90, 1, count)}
        for one in rows:
            names = [one["title"]] if one["images"] is None else [f"{one['title']}, seed {seed}" for seed in (0, 1)]
            columns |= {name: np.where(np.arange(count) == 3, np.nan, rng.normal(size=count)) for name in names}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        (stage.location / "scores.parquet").write_bytes(memoryview(sink.getvalue()))
        best = next((one for one in rows if one["best"]), rows[0])
        summary |= {"best": best["title"], "tau": best["tau"]["mean"]}
        stage.done_file.write_json({**summary, "rankings": len(rows), "seconds": 12.0})
        return stage

    return add


ROWS = [
    row("parameters", None, 0.5, tau_gain=None),
    row("spos on synthetic", "synthetic", 0.6, best=True),
    row("spos on real (not data-free)", "real", 0.7),
]


def section_of(run):
    page = write_report(run).read_bytes().decode()
    return page, page.split('<section id="benchmark">')[1].split("</section>")[0]


def test_rankings_stand_in_the_order_of_merit_with_the_best_of_those_without_data_marked(run, add_benchmark):
    add_benchmark(run, *ROWS)
    page, section = section_of(run)
    assert re.findall(r'<tr class="(\w*)"><th scope="row">(\w+)</th><td>([^<]*)</td>', section) == [
        ("", "spos", "real, not data-free"),
        ("main", "spos", "synthetic"),
        ("", "parameters", "–"),
    ]
    assert "0.55 … 0.65" in section
    assert "rows 0 to 39 of the table's 50" in " ".join(section.split())
    assert "No real image has been read" not in page


def test_a_benchmark_alone_is_a_whole_report_that_begins_with_its_best_ranking(run, add, add_benchmark):
    add.synthesis(run)
    add_benchmark(run, *ROWS)
    page, _ = section_of(run)
    assert "Not in this report" not in page
    assert "best without data: spos on synthetic" in page
    assert "0.600" in page


def test_without_real_images_the_page_says_so(run, add_benchmark):
    add_benchmark(run, *ROWS[:2])
    page, _ = section_of(run)
    assert "No real image has been read" in page


def test_labels_are_escaped(run, add_benchmark):
    hostile = row("<b>x & y</b> on noise", "noise", 0.6, best=True)
    add_benchmark(run, ROWS[0], hostile)
    page, _ = section_of(run)
    assert "<b>x" not in page
    assert "&lt;b&gt;x &amp; y" in page


def test_a_run_without_a_benchmark_misses_nothing(run, add):
    add.synthesis(run)
    assert "Benchmark" not in write_report(run).read_bytes().decode()


def test_the_figure_is_a_file_of_its_own_with_its_colours(run, add_benchmark):
    stage = add_benchmark(run, *ROWS)
    svg = write_figure(stage.location).read_bytes().decode()
    ElementTree.fromstring(svg)
    used = set(re.findall(r"var\((--[\w-]+)\)", svg))
    defined = set(re.findall(r"(--[\w-]+):", svg))
    assert {"--ink", "--series-1"} <= used <= defined
