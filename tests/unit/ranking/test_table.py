"""Tables of true accuracies: what is read, what is drawn, and what is refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfnas_ray.errors import ConfigError, DatasetError
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.ranking.statistics import kendall_tau
from dfnas_ray.ranking.table import read_table
from dfnas_ray.search_spaces import NASBench201Config, NASBenchMacroConfig

CHAIN = NASBenchMacroConfig(stage_layers=(1, 1), stage_channels=(8, 16)).space((1, 16, 16), 10)


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a text as CSV and reads it as a table of a chain of two layers."""

    def run(text, **settings):
        file = tmp_path / "table.csv"
        file.write_text(text)
        return read_table(BenchmarkConfig(table=str(file), **settings), CHAIN)

    return run


def test_genotypes_that_look_like_numbers_stay_text(read):
    table = read("arch,accuracy\n00,91.5\n01,92\n21,93.25\n")
    assert table.architectures == ((0, 0), (0, 1), (2, 1))
    assert table.accuracies.tolist() == [91.5, 92, 93.25]


def test_csv_and_parquet_of_the_same_content_are_the_same_table(read, tmp_path):
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table({"arch": ["00", "01"], "accuracy": [91.5, 92]}), file)
    assert (
        read_table(BenchmarkConfig(table=str(file)), CHAIN).fingerprint
        == read("arch,accuracy\n00,91.5\n01,92\n").fingerprint
    )
    assert read("arch,accuracy\n00,91.5\n01,92.1\n").fingerprint != read("arch,accuracy\n00,91.5\n01,92\n").fingerprint


def test_columns_are_found_or_named(read):
    assert read("arch,note,cifar10_test\n00,good,91\n01,bad,92\n").accuracy_column == "cifar10_test"
    assert read("arch,params,accuracy\n00,5,91\n01,6,92\n").accuracy_column == "accuracy"
    named = read("cell,params,val\n00,5,91\n01,6,92\n", architecture_column="cell", accuracy_column="val")
    assert named.accuracies.tolist() == [91, 92]


@pytest.mark.parametrize(
    ("text", "settings", "error", "message"),
    [
        ("arch,accuracy\n00,1\n09,2\n", {}, DatasetError, "row 1: '09' is not a genotype of nasbench_macro"),
        ("arch,accuracy\n00,1\n,2\n", {}, DatasetError, "names no architecture in row 1"),
        ("arch,accuracy\n00,1\n01,\n02,\n", {}, DatasetError, "no finite value for accuracy in row 1 and 1 more"),
        ("arch,accuracy\n00,nan\n01,2\n", {}, DatasetError, "no finite value for accuracy in row 0"),
        ("arch,accuracy\n00,inf\n01,2\n", {}, DatasetError, "no finite value for accuracy in row 0"),
        ("arch,accuracy\n00,1\n01,2\n00,1\n", {}, DatasetError, "00 twice, in rows 0 and 2"),
        ("cell,accuracy\n00,1\n", {}, ConfigError, "architecture_column.*'arch'.*columns are cell, accuracy"),
        ("arch,a,b\n00,1,2\n", {}, ConfigError, "several columns of numbers.*accuracy_column.*arch, a, b"),
        ("arch,a\n00,good\n", {}, ConfigError, "no column of numbers"),
        ("arch,a\n00,1\n", {"accuracy_column": "b"}, ConfigError, "accuracy_column.*'b'.*columns are arch, a"),
        ("arch,a\n00,good\n", {"accuracy_column": "a"}, DatasetError, "a of the table .* not hold numbers, but"),
        ("arch,accuracy\n", {"accuracy_column": "accuracy"}, DatasetError, "has no rows"),
        ("arch,accuracy\n", {}, DatasetError, "has no rows"),
        ("arch,accuracy\n00,1,2\n", {}, DatasetError, "cannot be read.*CSV file"),
        ("", {}, DatasetError, "cannot be read.*CSV file"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_where(read, text, settings, error, message):
    with pytest.raises(error, match=message):
        read(text, **settings)


def test_a_file_that_is_not_there_or_not_named_is_told(tmp_path):
    with pytest.raises(DatasetError, match=r"benchmark.table .*absent.csv\) does not exist"):
        read_table(BenchmarkConfig(table=str(tmp_path / "absent.csv")), CHAIN)
    with pytest.raises(ConfigError, match=r"benchmark.table is not set.*--table FILE"):
        read_table(BenchmarkConfig(), CHAIN)
    with pytest.raises(DatasetError, match=r"benchmark.table \(nowhere://x\) cannot be read"):
        read_table(BenchmarkConfig(table="nowhere://x"), CHAIN)


@pytest.fixture
def whole(read):
    return read("arch,accuracy\n" + "".join(f"{a}{b},{10 * a + b}\n" for a in range(3) for b in range(3)))


def drawn(table, seed=0, **settings):
    return table.sample(BenchmarkConfig(**settings), seed).accuracies.tolist()


def test_a_sample_is_drawn_from_the_rows_that_may_be_used(whole):
    assert drawn(whole) == whole.accuracies.tolist()
    assert drawn(whole, rows=(3, 6)) == [10, 11, 12]
    sample = drawn(whole, rows=(3, 9), architectures=4)
    assert len(set(sample)) == 4
    assert set(sample) <= {10, 11, 12, 20, 21, 22}
    assert sample == drawn(whole, rows=(3, 9), architectures=4)
    assert len({tuple(drawn(whole, seed, architectures=4)) for seed in range(5)}) > 1


def test_a_larger_sample_holds_the_smaller_one(whole):
    assert set(drawn(whole, architectures=3)) < set(drawn(whole, architectures=6))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architectures": 10}, r"architectures \(10\).*between 3 and the 9 rows that the table has"),
        ({"architectures": 4, "rows": (0, 3)}, r"architectures \(4\).*3 rows that benchmark.rows \[0, 3\] holds"),
        ({"rows": (4, 12)}, r"rows \[4, 12\] ends beyond the table, which has 9 rows"),
        ({"rows": (4, 5)}, r"rows \[4, 5\] holds 1 row\(s\)"),
    ],
)
def test_more_than_there_is_cannot_be_drawn(whole, settings, message):
    with pytest.raises(ConfigError, match=message):
        whole.sample(BenchmarkConfig(**settings), 0)


def test_equal_accuracies_have_no_order(whole):
    accuracies = np.full(len(whole), 90.0)
    with pytest.raises(ConfigError, match=r"all have the same value \(90\) in the column 'accuracy'"):
        replace(whole, accuracies=accuracies).sample(BenchmarkConfig(), 0)


@pytest.mark.skipif("DFNAS_DATA" not in os.environ, reason="DFNAS_DATA names no folder with nasbench201_cifar10.csv")
def test_the_ruler_reproduces_the_published_tau_of_the_number_of_parameters():
    """0.578 over all 15,625 full-size cells, as published."""
    space = NASBench201Config().space((3, 32, 32), 10)
    path = Path(os.environ["DFNAS_DATA"]) / "nasbench201_cifar10.csv"
    table = read_table(BenchmarkConfig(table=str(path)), space)
    assert len(table) == 15_625
    costs = [space.cost(genotype) for genotype in table.architectures]
    params = np.array([[cost.params for cost in costs]], dtype=float)
    assert kendall_tau(params, table.accuracies[None])[0] == pytest.approx(0.578, abs=0.005)
