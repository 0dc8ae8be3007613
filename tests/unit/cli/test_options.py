"""An option of the command line is text, whatever YAML would make of it."""

from __future__ import annotations

import pytest

from dfnas_ray.cli.options import read_overrides, text_override
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError

TEXTS = [
    "runs/exp #1",
    "20240501",
    "1e-3",
    "true",
    "null",
    "a: b",
    "[x",
    "'",
    '"',
    "\\",
    "ä😀",
    "*a",
    "&a",
    "- x",
    " x ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_run_directory_is_what_was_typed(text):
    config = make_experiment({"teacher": "digits"}, read_overrides(None, run_dir=text))
    assert config.run_dir == text


@pytest.mark.parametrize("text", ["[::1]:6379", "10:20", "no", "HOST:6379"])
def test_the_address_is_what_was_typed(text):
    assert make_experiment({"teacher": "digits"}, read_overrides(None, address=text)).cluster.address == text


def test_what_needs_no_quotes_has_none():
    assert read_overrides(["seed=1"], "/shared/a b", "auto") == [
        "seed=1",
        "run_dir=/shared/a b",
        "cluster.address=auto",
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_a_table_is_what_was_typed(text):
    config = make_experiment({"teacher": "digits"}, [text_override("benchmark.table", text)])
    assert str(config.benchmark.table) == text


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "-x", "a/b", "a b", ""])
def test_a_name_leads_nowhere_else(name):
    with pytest.raises(ConfigError, match="name"):
        make_experiment({"teacher": "digits", "name": name})
