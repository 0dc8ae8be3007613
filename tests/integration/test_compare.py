"""`dfnas compare` in the small: variants, seeds, tables, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dfnas_ray.cli.main import app
from dfnas_ray.comparison.result import ComparisonResult
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError, DatasetError
from dfnas_ray.execution.inline import InlineExecutor
from dfnas_ray.execution.ray.executor import RayExecutor
from dfnas_ray.library import compare
from dfnas_ray.workflow.comparison import VariantComparison
from dfnas_ray.workflow.retraining import ComparedNetwork
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session

VARIANTS = {
    "synthetic": {},
    "noise": {"search.images": "noise"},
    "no statistics": {"synthesis.regularizers.bn_statistics.weight": 0},
}


@pytest.fixture
def values(tiny_values, tmp_path):
    values = tiny_values()
    values["cluster"]["address"] = "inline"
    values["synthesis"]["num_shards"] = 1
    values["run_dir"] = str(tmp_path / "run")
    values["comparison"] = {"variants": dict(VARIANTS), "seeds": [0, 1], "random": 1, "reference": "noise"}
    return values


@pytest.fixture
def table(tmp_path):
    """True accuracies of all nine architectures of the tiny space but one."""
    file = tmp_path / "table.csv"
    rows = [f"{a}{b},{80 + 3 * a + b}" for a in range(3) for b in range(3) if (a, b) != (1, 1)]
    file.write_text("\n".join(["arch,accuracy", *rows]) + "\n")
    return str(file)


def result_of(outcome):
    return ComparisonResult.read(outcome.location)


def test_variants_are_searched_retrained_and_compared_seed_by_seed(values, tmp_path):
    del values["comparison"]["variants"]["no statistics"]
    outcome = compare(make_experiment(values))
    result = result_of(outcome)
    assert [(one.variant, one.seed) for one in result.found] == [
        (name, seed) for seed in (0, 1) for name in ("synthetic", "noise")
    ]
    assert result.judged_by == "retraining"
    rows = {(row.figure, row.variant): row for row in result.rows}
    assert {figure for figure, _ in rows} == {"accuracy", "gain"}
    own, reference = rows["accuracy", "synthetic"], rows["accuracy", "noise"]
    assert reference.difference is None
    assert own.difference.per_seed == tuple(
        a - b for a, b in zip(own.value.per_seed, reference.value.per_seed, strict=True)
    )
    beside = next(one for one in result.found if (one.variant, one.seed) == ("synthetic", 0))
    assert beside.random == 1
    only_own, only_reference = beside.only_right
    accuracies = {one.variant: one.accuracy for one in result.found if one.seed == 0}
    assert only_own - only_reference == pytest.approx((accuracies["synthetic"] - accuracies["noise"]) * 540 / 100)
    assert 0 < beside.mcnemar <= 1
    text = (tmp_path / "run" / "comparison").glob("*/comparison.md")
    (page,) = [file.read_text() for file in text]
    assert "Differences from noise" in page
    report = (tmp_path / "run" / "report.html").read_text()
    assert 'href="#comparison"' in report
    assert "Gain over random networks of the same MACs" in report
    assert "<code>search.images: noise</code>" in report
    assert "Real images were read for the comparison's accuracies" in report
    assert "Not in this report" not in report
    assert "`search.images: noise`" in page


def test_what_is_finished_is_not_done_again_and_a_new_variant_is_added(values, tmp_path, monkeypatch):
    values["comparison"]["seeds"] = [0]
    compare(make_experiment(values))
    searches = sorted(path.name for path in (tmp_path / "run" / "search").iterdir())
    assert len(searches) == 3
    values["comparison"]["variants"]["more"] = {"search.algorithm.epochs": 1}
    outcome = compare(make_experiment(values))
    assert not outcome.reused
    assert set(searches) < {path.name for path in (tmp_path / "run" / "search").iterdir()}
    assert len(list((tmp_path / "run" / "search").iterdir())) == 4
    assert compare(make_experiment(values)).reused
    assert not (tmp_path / "run" / "latest.json").exists() or "search" not in json.loads(
        (tmp_path / "run" / "latest.json").read_text()
    )


def test_a_comparison_that_was_broken_off_repeats_no_finished_cell(values, tmp_path, monkeypatch):
    values["comparison"]["seeds"] = [0]
    work, calls = Search.work, []

    def broken(self):
        calls.append(self.location.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return work(self)

    monkeypatch.setattr(Search, "work", broken)
    with pytest.raises(KeyboardInterrupt):
        compare(make_experiment(values))
    compare(make_experiment(values))
    assert len(calls) == 4
    assert calls[1] == calls[2]  # the one that was broken off, and not the first


def test_a_table_says_what_is_found_is_worth_and_how_rankings_agree(values, table):
    values["benchmark"] = {"table": table}
    values["search"]["max_macs"] = None
    result = result_of(compare(make_experiment(values)))
    assert result.judged_by == "the table"
    assert {row.figure for row in result.rows} >= {"tau", "accuracy", "regret"}
    assert result.architectures == 8
    for one in result.found:
        if one.accuracy is not None:
            digits = [int(digit) for digit in one.genotype]
            assert one.accuracy == 80 + 3 * digits[0] + digits[1]
            assert one.regret == 88 - one.accuracy
    assert result.missing in ((), ("11",))
    tau = {row.variant: row for row in result.rows if row.figure == "tau"}
    assert set(tau) == set(VARIANTS)
    assert tau["synthetic"].difference.low <= tau["synthetic"].difference.mean <= tau["synthetic"].difference.high


def test_accuracies_that_are_shares_of_1_are_refused(values, table):
    file = Path(table)
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *(f"{row[:2]},0.{row[3:]}" for row in rows)]))
    values["benchmark"] = {"table": table}
    with pytest.raises(ConfigError, match=r"'accuracy' of benchmark.table is above 0\.88.*multiply the column by 100"):
        compare(make_experiment(values))


def test_a_variant_of_another_space_is_refused_beside_a_table(values, table):
    values["benchmark"] = {"table": table}
    values["comparison"] |= {"reference": None, "variants": {"a": {}, "b": {"search.space.stem_channels": 6}}}
    with pytest.raises(
        ConfigError, match=r"comparison\.variants\.b has another search\.space.*leave benchmark\.table out"
    ):
        compare(make_experiment(values))


def test_another_sample_of_a_table_is_ranked_anew(values, table):
    values["benchmark"] = {"table": table, "architectures": 5}
    values["comparison"]["measures"] = ["ranking"]
    first, other = (compare(make_experiment({**values, "seed": seed})).location for seed in (0, 1))
    assert first != other


@pytest.mark.parametrize("by_table", [False, True], ids=["retrained", "by a table"])
def test_only_the_images_of_one_seed_are_held_at_the_same_time(values, table, held, by_table):
    values["comparison"]["variants"] = {"synthetic": {}, "noise": {"search.images": "noise"}}
    values["benchmark"] = {"table": table} if by_table else None
    compare(make_experiment(values))
    assert max(held) == 2


def test_the_command_prints_its_tables(values, table, tmp_path):
    values["benchmark"] = {"table": table}
    values["comparison"]["measures"] = ["ranking"]
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, ["compare", str(file)])
    assert result.exit_code == 0, result.output
    assert "tau of the ranking" in result.output
    assert "comparison.svg" in result.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"variants": {"a": {}, "b": {"search.imagse": "noise"}}}, r"comparison.variants.b: .*search.imagse"),
        (
            {"variants": {"a": {}, "b": {"search.images": "nois"}}},
            r"comparison.variants.b: search.images.kind \('nois'\).*Did you mean noise",
        ),
        ({"variants": {"a": {}, "b": {"seed": 3}}}, r"variants.b.seed: all variants have seed in common"),
        ({"variants": {"a": {}, "b": {"teacher.width": 8}}}, r"all variants have teacher in common"),
        ({"variants": {"a": {}}}, r"comparison.variants"),
        ({"reference": "real"}, r"reference \('real'\) must be one of the variants: synthetic, noise"),
        ({"random": 0, "margins": {"accuracy": 0.5}}, r"margins make a claim, and random \(0\)"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\] must be different"),
        (
            {
                "variants": {
                    "a": {},
                    "b": {"search.images": {"kind": "real", "dataset": {"kind": "image_folder", "path": "x"}}},
                }
            },
            r"comparison.variants.b: .*allow_real_images: true",
        ),
    ],
)
def test_what_makes_no_sense_is_one_error(values, change, told):
    values["comparison"] = {**values["comparison"], "reference": None, **change}
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        make_experiment(values)


def test_a_ranking_needs_a_table(values):
    values["comparison"]["measures"] = ["ranking"]
    with pytest.raises(ConfigError, match=r"measures: ranking needs the true accuracies of a table: benchmark\.table"):
        compare(make_experiment(values))


def test_too_few_real_images_are_found_before_the_first_search(values, tmp_path):
    values["allow_real_images"] = True
    folder = tmp_path / "photos" / "3"
    folder.mkdir(parents=True)
    for number in range(10):
        (tmp_path / "photos" / str(number)).mkdir(exist_ok=True)
        Image.new("L", (16, 16)).save(tmp_path / "photos" / str(number) / "a.png")
    real = {"kind": "real", "dataset": {"kind": "image_folder", "path": str(tmp_path / "photos")}}
    values["comparison"]["variants"]["real"] = {"search.images": real}
    with pytest.raises(DatasetError, match=r"search\.images\.dataset: .*holds 10 images"):
        compare(make_experiment(values))
    assert not (tmp_path / "run" / "search").exists()


def test_every_cell_has_images_of_its_own(values):
    with Session(make_experiment(values)).opened() as session:
        comparison = VariantComparison(session)
        keys = {comparison.source(comparison.session_of(cell), "search.images").key for cell in comparison.cells}
    assert len(keys) == 6


@pytest.fixture
def of_two(values, tmp_path):
    """Two variants with two seeds, one of the variants only retrained in another way: four searches are two."""
    del values["comparison"]["variants"]["no statistics"]
    values["comparison"]["variants"]["longer"] = {"retraining.epochs": 3}
    values["comparison"] |= {"reference": "synthetic", "seeds": [0, 1]}

    def make(address, folder):
        values["cluster"]["address"], values["run_dir"] = address, str(tmp_path / folder)
        return make_experiment(values)

    return make


def what_is_there(run):
    """Every finished stage with its key, and what it found or trained."""
    files = [*run.glob("search/*/trials.json"), *run.glob("compared/*/weights.safetensors")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def test_cells_at_work_side_by_side_give_what_they_give_one_after_the_other(of_two, address, tmp_path, monkeypatch):
    def alone(*_):
        pytest.fail("it is spread with all others")

    for executor in (InlineExecutor, RayExecutor):
        monkeypatch.setattr(executor, "run_trials", alone)
        monkeypatch.setattr(executor, "train", alone)
    monkeypatch.setattr(InlineExecutor, "room_for", lambda *_: 2)
    kept, keep = [], ComparedNetwork.keep

    def broken(self, trained, seconds=0.0):
        kept.append(self.location.name)
        if len(kept) == 2:
            raise KeyboardInterrupt
        assert seconds > 0
        return keep(self, trained, seconds)

    took, work = [], Search.work

    def timed(self):
        took.append(self.seconds_before)
        return work(self)

    monkeypatch.setattr(Search, "work", timed)
    monkeypatch.setattr(ComparedNetwork, "keep", broken)
    with pytest.raises(KeyboardInterrupt):
        compare(of_two(address, "spread"))
    spread = result_of(compare(of_two(address, "spread")))
    assert len(set(kept)) == len(kept) - 1, "only the one that was broken off was done again"
    monkeypatch.undo()

    one_by_one = result_of(compare(of_two("inline", "one-by-one")))
    assert spread.found == one_by_one.found
    assert what_is_there(tmp_path / "spread") == what_is_there(tmp_path / "one-by-one")
    assert len(took) == 4
    assert min(took) > 0, "a search that two variants share knows how long it took"
