"""The benchmark's section: every ranking with its figures, real images marked, safe with any text."""

import re
from io import StringIO
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dfnas_ray.cli import benchmark
from dfnas_ray.ranking.result import BenchmarkResult
from dfnas_ray.report.benchmark_section import write_figure
from dfnas_ray.report.page import write_report


def section_of(run):
    page = write_report(run).read_bytes().decode()
    return page, page.split('<section id="benchmark">')[1].split("</section>")[0]


def test_rankings_stand_in_the_order_of_merit_with_the_best_of_those_without_data_marked(run, add):
    add.benchmark(run, *add.rankings)
    page, section = section_of(run)
    assert re.findall(r'<tr class="(\w*)"><th scope="row">(\w+)</th><td>([^<]*)</td>', section) == [
        ("", "spos", "real, not data-free"),
        ("main", "spos", "synthetic"),
        ("", "parameters", "–"),
    ]
    assert "0.55 … 0.65" in section
    assert "rows 0 to 39 of the table's 50" in " ".join(section.split())
    assert "No real image has been read" not in page


def test_a_benchmark_alone_is_a_whole_report_that_begins_with_its_best_ranking(run, add):
    add.synthesis(run)
    add.benchmark(run, *add.rankings)
    page, _ = section_of(run)
    assert "Not in this report" not in page
    assert "best without data: spos on synthetic" in page
    assert "0.600" in page


def test_without_real_images_the_page_says_so(run, add):
    add.benchmark(run, *add.rankings[:2])
    page, _ = section_of(run)
    assert "No real image has been read" in page


def test_labels_are_escaped(run, add):
    hostile = add.ranking("<b>x & y</b> on noise", "noise", 0.6, best=True)
    add.benchmark(run, add.rankings[0], hostile)
    page, _ = section_of(run)
    assert "<b>x" not in page
    assert "&lt;b&gt;x &amp; y" in page


def test_a_run_without_a_benchmark_misses_nothing(run, add):
    add.synthesis(run)
    assert "Benchmark" not in write_report(run).read_bytes().decode()


def test_the_figure_is_a_file_of_its_own_with_its_colours(run, add):
    stage = add.benchmark(run, *add.rankings)
    svg = write_figure(stage.location).read_bytes().decode()
    ElementTree.fromstring(svg)
    used = set(re.findall(r"var\((--[\w-]+)\)", svg))
    defined = set(re.findall(r"(--[\w-]+):", svg))
    assert {"--ink", "--series-1"} <= used <= defined


def test_a_result_without_a_best_ranking_or_a_baseline_is_none(run, add):
    facts = BenchmarkResult.read(add.benchmark(run, *add.rankings).location)
    for rows in ((), add.rankings[:1], add.rankings[1:]):
        with pytest.raises(ValueError, match="one ranking must be the best"):
            BenchmarkResult(**{**dict(facts), "rankings": rows})


def test_the_command_prints_the_rankings_in_the_order_of_merit(run, add, monkeypatch):
    folder = add.benchmark(run, *add.rankings).location
    written = StringIO()
    monkeypatch.setattr(benchmark, "out", Console(file=written, width=300))
    benchmark.show_rankings(folder)
    lines = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert lines[:5] == [
        "30 architectures of nasbench_macro, 2 seeds",
        "ranking by images tau 95 % rho regret@1, @5 s/arch",
        "spos real (not data-free) 0.700 0.65 … 0.75 0.800 1.25, 1.25 1.5",
        "spos ★ synthetic 0.600 0.55 … 0.65 0.700 1.25, 1.25 1.5",
        "parameters 0.500 0.45 … 0.55 0.600 1.25, 1.25",
    ]
    assert f"Scores: {folder}/scores.parquet" in lines
