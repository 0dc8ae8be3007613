"""What a limit of MACs may be: a number of them, or a share of the teacher's."""

from __future__ import annotations

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError


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
