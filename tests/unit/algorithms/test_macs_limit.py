"""What a limit of MACs may be: a number of them, or a share of the teacher's."""

from __future__ import annotations

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError, DfnasError
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session


def limit(text):
    return make_experiment({"teacher": "digits"}, [f"search.max_macs={text}"]).search.max_macs


@pytest.mark.parametrize(
    ("text", "value"), [("2000000", 2_000_000), ("1e6", 1_000_000), ("50%", "50%"), ("null", None)]
)
def test_a_number_or_a_share_is_taken(text, value):
    assert limit(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.5", "did you mean 50%"),
        ("1", "did you mean 100%"),
        ("0", "such as 50%"),
        ("-3", "such as 50%"),
        (".inf", "such as 50%"),
        ("half", "such as 50%"),
    ],
)
def test_anything_else_says_what_would_be_right(text, said):
    with pytest.raises(ConfigError, match=rf"search\.max_macs \(.*neither a number of MACs.*{said}"):
        limit(text)


SMALL = {"kind": "nasbench_macro", "stem_channels": 16, "stage_layers": [2, 2, 2], "stage_channels": [16, 32, 64]} | {
    "head_channels": 128
}


def experiment(**search):
    return make_experiment({"teacher": {"kind": "digits", "width": 4}, "search": {"algorithm": "spos", **search}})


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"min_macs": 2000, "max_macs": 1000}, r"search: min_macs \(2,000\) must not be above max_macs \(1,000\)"),
        ({"min_macs": 0}, r"search\.min_macs \(0\): it is neither a number of MACs"),
        ({"min_macs": 10, "algorithm": "darts"}, r"min_macs \(10\) is not supported by darts; .*use spos"),
        ({"min_macs": 10, "algorithm": ["spos", "proxyless"]}, r"is not supported by proxyless"),
    ],
)
def test_a_lower_limit_that_cannot_be_kept_is_refused_with_the_file(search, said):
    with pytest.raises(ConfigError, match=rf"(?s){said}"):
        experiment(**search)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"min_macs": "60%", "max_macs": "50%"}, r"search\.min_macs \(60%, [\d,]+\) is above search\.max_macs \(50%, "),
        (
            {"min_macs": 10**12, "max_macs": None},
            r"search\.min_macs \(1,000,000,000,000\) is above the largest architecture",
        ),
    ],
)
def test_one_that_depends_on_the_teacher_is_refused_before_anything_is_made(search, said, tmp_path):
    config = experiment(**search).model_copy(update={"run_dir": str(tmp_path / "run")})
    with pytest.raises(DfnasError, match=said), Session(config).opened() as session:
        Search(session).check()


def test_a_limit_that_is_not_given_changes_no_key():
    settings = experiment().search.settings
    assert "min_macs" not in settings
    assert "path_bins" not in settings["algorithm"]
    assert experiment(min_macs=10).search.settings["min_macs"] == 10
