"""The benchmark section: errors that say what would be right, before anything is started."""

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError
from dfnas_ray.workflow.benchmark import plan


def experiment(search=None, **benchmark):
    space = {"kind": "nasbench_macro", "stage_layers": [1, 1], "stage_channels": [8, 16]}
    values = {"teacher": "digits", "search": {"space": space, **(search or {})}, "benchmark": benchmark}
    return make_experiment(values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": [5, 5]}, r"benchmark.rows|rows \[5, 5\] hold no row.*\[0, 2000\]"),
        ({"rows": [-1, 5]}, r"rows \[-1, 5\] hold no row"),
        ({"architectures": 2}, r"benchmark.architectures \(2\).*greater than 2"),
        ({"sources": ["real"]}, r"source real needs benchmark.real"),
        ({"sources": ["photos"]}, r"benchmark.sources.*'synthetic', 'noise' or 'real'"),
        ({"sources": ["noise", "noise"]}, "must be different"),
        ({"seeds": []}, "benchmark.seeds"),
        ({"seeds": [-1]}, "must not be negative"),
        ({"tabel": "x.csv"}, "Did you mean table"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_the_file_is_read(settings, message):
    with pytest.raises(ConfigError, match=message):
        experiment(**settings)


def test_an_algorithm_that_cannot_rank_is_named_with_those_that_can():
    config = experiment({"algorithm": [{"kind": "random_search"}, {"kind": "darts"}]}, table="t.csv")
    with pytest.raises(ConfigError, match=r"algorithm darts cannot rank.*alphas.*random_search, spos"):
        plan(config)


def test_a_table_belongs_to_one_space():
    config = experiment({"space": [{"kind": "nasbench201"}, {"kind": "nasbench_macro"}]}, table="t.csv")
    with pytest.raises(ConfigError, match="lists 2 spaces"):
        plan(config)


def test_without_a_section_the_error_shows_one():
    with pytest.raises(ConfigError, match=r"no benchmark section.*--table FILE"):
        plan(make_experiment({"teacher": "digits"}))
