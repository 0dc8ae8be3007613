"""Files of another version, or altered: named in the report, their stage missing there, everything else shown."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfnas_ray.algorithms.selection import ComparedTrials
from dfnas_ray.comparison.result import ComparisonResult
from dfnas_ray.errors import StorageError
from dfnas_ray.ranking.result import BenchmarkResult
from dfnas_ray.report.artefacts import read_artefacts
from dfnas_ray.report.benchmark_section import write_figure
from dfnas_ray.report.page import write_report
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.synthesis.quality import QualityReport
from dfnas_ray.training.export import NetworkDescription
from dfnas_ray.workflow.benchmark import Benchmark
from dfnas_ray.workflow.comparison import VariantComparison
from dfnas_ray.workflow.evaluation import Evaluation
from dfnas_ray.workflow.retraining import Baseline, History, Retraining
from dfnas_ray.workflow.run import REPORTED
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.synthesis import Synthesis

DEEP = "[" * 150 + "]" * 150
DEEPEST = "[" * 100_000 + "]" * 100_000


def with_value(name, value):
    """A change of one entry of a JSON object."""
    return lambda text: json.dumps({**json.loads(text), name: value})


ALTERED = {
    "null": lambda text: "null",
    "number": lambda text: "5",
    "list": lambda text: "[]",
    "text": lambda text: '"done"',
    "empty": lambda text: "",
    "empty object": lambda text: "{}",
    "half": lambda text: text[: len(text) // 2],
    "deep": lambda text: DEEP,
    "deeper than Python goes": lambda text: DEEPEST,
    "deep within": with_value("machine", {"cpus": json.loads(DEEP)}),
    "list within": with_value("machine", {"cpus": []}),
    "another version": with_value("mood", "good"),
    "text for a time": with_value("seconds", "long"),
    "no finite time": with_value("seconds", float("nan")),
    "no such year": with_value("finished_at", 1e300),
    "null for a time": with_value("seconds", None),
}
ANCHORS = {
    Synthesis: "images",
    Search: "search",
    Retraining: None,
    Baseline: None,
    Evaluation: "results",
    Benchmark: "benchmark",
    VariantComparison: "comparison",
}
COMMANDS_OF_THEIR_OWN = (Benchmark, VariantComparison)


@pytest.fixture
def whole_run(finished_run, add):
    add.benchmark(finished_run, *add.rankings)
    add.comparison(finished_run)
    return finished_run


def alter(file, change):
    file.write_bytes(change(file.read_bytes().decode()).encode())


def notices(page):
    """What the page says is not readable, and which stages it misses and why."""
    unreadable = re.search(r"<h2>Not readable</h2>\n<ul>\n(.*?)</ul>", page, re.DOTALL)
    missing = re.findall(r"<li><strong>([^<]*)</strong>: ([^<]*)</li>", page)
    return re.findall(r"<li>([^<]*)</li>", unreadable[1]) if unreadable else [], dict(missing)


def page_of(run):
    return write_report(run).read_bytes().decode()


def test_in_a_run_that_was_left_alone_nothing_is_named(whole_run):
    assert notices(page_of(whole_run)) == ([], {})
    assert set(ANCHORS) == set(REPORTED)


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
@pytest.mark.parametrize("stage", REPORTED, ids=lambda stage: stage.name)
def test_a_record_that_was_altered_is_named_and_counts_as_missing(whole_run, stage, change):
    folder = whole_run.latest_stage(stage.name)
    alter(folder / "done.json", change)
    artefacts = read_artefacts(whole_run)
    (problem,) = artefacts.problems.texts
    assert str(folder / "done.json") in problem
    assert {each.title for each, found in artefacts.stages.items() if not found.finished} == {stage.title}
    assert artefacts[stage].status == (
        "off" if stage in COMMANDS_OF_THEIR_OWN else "missing"
    )  # nothing is missing without it


@pytest.mark.parametrize("stage", REPORTED, ids=lambda stage: stage.name)
def test_the_page_shows_the_other_stages_and_names_the_file(whole_run, stage):
    folder = whole_run.latest_stage(stage.name)
    alter(folder / "done.json", ALTERED["null"])
    page = page_of(whole_run)
    (problem,), missing = notices(page)
    assert str(folder / "done.json") in problem
    expected = (
        {} if stage in (Search, *COMMANDS_OF_THEIR_OWN) else {stage.title: "not finished yet"}
    )  # rankings may be all
    assert missing == expected
    for other, anchor in ANCHORS.items():
        if anchor is not None:
            assert (f'<section id="{anchor}">' in page) == (other is not stage)


def test_a_search_whose_record_was_altered_is_missing_where_no_benchmark_is(finished_run):
    alter(finished_run.latest_stage("search") / "done.json", ALTERED["null"])
    assert notices(page_of(finished_run))[1] == {"Search": "not finished yet"}


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        (Synthesis, with_value("teacher", {"name": "t"})),
        (Synthesis, with_value("images", -1)),
        (Synthesis, with_value("images", 10**400)),
        (Search, with_value("trials", [{"trial": 5}])),
        (Search, with_value("macs", "many")),
        (Retraining, with_value("validation_agreement", None)),
        (Evaluation, with_value("networks", {})),
        (Evaluation, with_value("networks", {"teacher": None})),
        (Evaluation, with_value("images", 0)),
        (
            Evaluation,
            with_value("networks", {"teacher": {"architecture": "a", "accuracy": 2.0, "params": 1, "macs": 1}}),
        ),
        (Benchmark, with_value("tau", "high")),
        (VariantComparison, with_value("searches", "many")),
    ],
)
def test_figures_that_cannot_be_are_not_shown(whole_run, stage, change):
    folder = whole_run.latest_stage(stage.name)
    alter(folder / "done.json", change)
    (problem,) = read_artefacts(whole_run).problems.texts
    assert str(folder / "done.json") in problem


@pytest.mark.parametrize("stage", REPORTED, ids=lambda stage: stage.name)
@pytest.mark.parametrize("content", ["null", "5", "[]", DEEP, "{"])
def test_a_stage_whose_inputs_were_altered_is_missing(whole_run, stage, content):
    folder = whole_run.latest_stage(stage.name)
    alter(folder / "inputs.json", lambda text: content)
    (problem,) = read_artefacts(whole_run).problems.texts
    assert str(folder / "inputs.json") in problem


@pytest.mark.parametrize("value", [None, [], {"synthesis": 5}])
def test_inputs_without_what_they_usually_hold_are_no_reason_to_stop(whole_run, value):
    for name in ("upstream", "networks", "synthesis", "search", "teacher"):
        for stage in REPORTED:
            alter(whole_run.latest_stage(stage.name) / "inputs.json", with_value(name, value))
    assert notices(page_of(whole_run)) == ([], {})


BESIDE = [
    (Synthesis, "manifest.json", Manifest.find),
    (Synthesis, "quality.json", QualityReport.find),
    (Search, "trials.json", ComparedTrials.read),
    (Retraining, "history.json", History.read),
    (Retraining, "network.json", NetworkDescription.find),
    (Baseline, "history.json", History.read),
    (Benchmark, "benchmark.json", BenchmarkResult.read),
    (VariantComparison, "comparison.json", ComparisonResult.read),
]
beside = pytest.mark.parametrize(
    ("stage", "name", "reader"), BESIDE, ids=[f"{stage.name}-{name}" for stage, name, _ in BESIDE]
)


@beside
@pytest.mark.parametrize("content", ["null", "5", "[5]", '{"a": []}', '[{"loss": "low"}]', "", DEEP, DEEPEST])
def test_a_file_beside_the_record_that_was_altered_is_refused_by_its_name(whole_run, stage, name, reader, content):
    folder = whole_run.latest_stage(stage.name)
    (folder / name).write_bytes(content.encode())
    with pytest.raises(StorageError, match=re.escape(str(folder / name))):
        reader(folder)


@pytest.mark.parametrize(
    ("stage", "name"),
    [*((stage, name) for stage, name, _ in BESIDE), (Benchmark, "scores.parquet")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_page_shows_the_stage_without_a_file_that_was_altered(whole_run, stage, name):
    file = whole_run.latest_stage(stage.name) / name
    file.write_bytes(b"null")
    page = page_of(whole_run)
    (problem,), missing = notices(page)
    assert str(file) in problem
    assert missing == {}
    assert f"{stage.name}/" in page.split('<section id="configuration">')[1]


@pytest.mark.parametrize(
    "columns", [{"accuracy": [1.0]}, {"parameters": [1.0]}, {"accuracy": ["high"], "spos on synthetic, seed 0": [1.0]}]
)
def test_scores_of_other_rankings_are_refused(run, add, columns):
    folder = add.benchmark(run, *add.rankings).location
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    (folder / "scores.parquet").write_bytes(memoryview(sink.getvalue()))
    with pytest.raises(StorageError, match=r"scores\.parquet does not hold the scores of spos on synthetic"):
        write_figure(folder)


@pytest.mark.parametrize(
    ("reader", "name", "content"),
    [
        (
            Manifest.find,
            "manifest.json",
            {"key": "k", "shards": [{"shard": 0, "file": "../x", "rows": 1, "bytes": 1, "sha256": ""}]},
        ),
        (QualityReport.find, "quality.json", {"overall": {}, "rounds": {"first": {}}}),
        (QualityReport.find, "quality.json", {"overall": {"entropy": []}, "rounds": {}}),
    ],
)
def test_paths_and_names_in_files_beside_the_images_are_checked(run, add, reader, name, content):
    folder = add.synthesis(run).location
    (folder / name).write_json(content)
    with pytest.raises(StorageError, match=name):
        reader(folder)


@pytest.mark.parametrize(
    "point",
    [
        5,
        {"phase": "training"},
        {"phase": "training", "number": "first"},
        {"phase": "training", "number": 1, "loss": [3]},
        {"phase": "training", "number": 10**400},
        {"phase": "sampling", "number": 1, "scores": 3},
        {"phase": "sampling", "number": 1, "scores": ["high"], "genotypes": [1]},
    ],
)
def test_a_history_of_other_types_is_refused(whole_run, point):
    folder = whole_run.latest_stage("search")
    trials = (folder / "trials.json").read_json()
    trials[0]["history"] = [point]
    (folder / "trials.json").write_json(trials)
    with pytest.raises(StorageError, match=r"trials\.json"):
        ComparedTrials.read(folder)


def test_without_their_histories_the_trials_are_still_listed(whole_run):
    alter(whole_run.latest_stage("search") / "trials.json", ALTERED["half"])
    page = page_of(whole_run)
    assert len(notices(page)[0]) == 1
    assert '<th scope="row">seed 0</th>' in page
    assert "Supernet training loss" not in page


def test_a_history_of_unequal_lists_is_no_reason_to_stop(whole_run):
    file = whole_run.latest_stage("search") / "trials.json"
    trials = file.read_json()
    trials[0]["history"] = [{"phase": "sampling", "number": 1, "scores": [1.0], "genotypes": ["21", "nonsense"]}]
    file.write_json(trials)
    assert notices(page_of(whole_run)) == ([], {})


@pytest.mark.parametrize(
    "latest", [None, 5, [], {"search": 5}, {"search": None}, {"search": ""}, {"search": ".."},
               {"search": "../../elsewhere"}, {"search": "/etc"}, {"search": "a\\b"}, json.loads(DEEP)]
)  # fmt: skip
def test_a_list_of_folders_that_was_altered_is_named_and_leads_nowhere(whole_run, latest):
    (whole_run.location / "latest.json").write_json(latest)
    with pytest.raises(StorageError, match=r"latest\.json"):
        write_report(whole_run)


def test_where_every_record_was_altered_the_error_names_them(run, add):
    stage = add.synthesis(run)
    alter(stage.done_file, ALTERED["null"])
    with pytest.raises(StorageError, match=r"no finished stage.*done\.json is of another version"):
        write_report(run)


@pytest.mark.parametrize(
    "text", ["[" * 5000, "a: [", "5", "teacher: 5\nretraining: 5\nevaluation: []\n", "d: 2026-99-99"]
)
def test_an_experiment_that_was_altered_is_shown_as_it_is(finished_run, text):
    (finished_run.location / "experiment.yaml").write_bytes(text.encode())
    artefacts = read_artefacts(finished_run)
    assert artefacts.config_text == text
    assert artefacts.problems.texts == []


def test_an_experiment_of_other_types_is_no_reason_to_stop(finished_run):
    text = b"name: [1]\nteacher: 5\nretraining: 5\nevaluation: []\nsynthesis: 3\n"
    (finished_run.location / "experiment.yaml").write_bytes(text)
    assert notices(page_of(finished_run))[0] == []


def test_a_search_space_of_another_version_is_not_drawn(finished_run):
    for stage, name in (("search", "done.json"), ("retraining", "done.json")):
        alter(finished_run.latest_stage(stage) / name, with_value("space_config", {"kind": "future"}))
    alter(finished_run.latest_stage("retraining") / "network.json", with_value("space", {"kind": ["odd"]}))
    page = page_of(finished_run)
    assert 'id="architecture"' not in page
    assert 'id="search"' in page


def test_the_figure_of_a_benchmark_names_what_it_cannot_read(run, add):
    folder = add.benchmark(run, *add.rankings).location
    (folder / "scores.parquet").delete_file()
    with pytest.raises(StorageError, match=r"scores\.parquet"):
        write_figure(folder)


def test_json_may_be_nested_a_hundred_levels_deep_but_no_more(tmp_path):
    file = Location.parse(tmp_path / "a.json")
    file.write_bytes(("[" * 99 + "]" * 99).encode())
    file.read_json()
    for depth in (101, 900, 5000):
        file.write_bytes(("[" * depth + "]" * depth).encode())
        with pytest.raises(StorageError, match=r"a\.json is nested more than 100 levels deep"):
            file.read_json()
