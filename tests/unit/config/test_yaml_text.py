"""YAML from strangers: plain values, or one error of bounded length in bounded time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfnas_ray.config.yaml_text import MAX_LENGTH, YamlTextError, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-13-45", "2020-13-45"),
        ("2020-02-20", "2020-02-20"),
        ("010", 10),
        ("12:30", "12:30"),
        ("1e-3", 0.001),
        ("1_000", 1000),
        ("0x1F", 31),
        ("-.inf", -math.inf),
        ("~", None),
        ("yes", True),
        ("!!str 5", "5"),
        ("'5'", "5"),
        (".", "."),
        ("5.", 5.0),
    ],
)
def test_a_scalar_is_what_people_mean(text, value):
    assert read_yaml(f"x: {text}") == {"x": value}
    assert type(read_yaml(f"x: {text}")["x"]) is type(value)


def test_a_merge_key_takes_over_what_is_not_given():
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('!!int "abc"', "'abc' is not a whole number (line 1, column 1)"),
        ("!!float x", "'x' is not a number"),
        ("!!bool maybe", "'maybe' is not a boolean"),
        ("x: !!timestamp 2020-01-01", "the tag timestamp is not allowed: plain values only (line 1, column 4)"),
        ("!!binary aGk=", "the tag binary"),
        ("!!python/object/apply:os.system [ls]", "the tag python/object/apply:os.system is not allowed"),
        ("x: !!map y", "this is not a mapping"),
        ("x: !!seq y", "this is not a list"),
        ("x: " + "9" * 5000, "a number of more than 100 digits"),
        ("a: 1\na: 2", "the key 'a' is given twice (line 2, column 1)"),
        ("1: x", "the key 1 must be text: put it in quotes"),
        ("[1]: x", "the key [1] must be text"),
        ("yes: x", "the key True must be text"),
        ("<<: 5", "expected a mapping"),
        ("[" * 100_000, "more than 50 levels of mappings and lists (line 1, column 51)"),
        ("- " * 5_000, "more than 50 levels of mappings and lists"),
        (BOMB, "more than 50,000 values"),
        ("a: &a [*a]", "*a refers to itself"),
        ("x: *y", "found undefined alias 'y'"),
        ("x: [1", "expected ',' or ']'"),
        ("a\x00b", "special characters are not allowed"),
        ("x" * (MAX_LENGTH + 1), "it has 300,001 characters, and 300,000 are the limit"),
        ("--- 1\n--- 2", "expected a single document"),
    ],
)
def test_anything_else_is_one_short_error(text, said):
    with pytest.raises(YamlTextError) as raised:
        read_yaml(text)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 450


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)  # of a machine that is busy
@given(PLAIN)
def test_what_is_written_is_read_back(value):
    assert read_yaml(write_yaml(value)) == value
